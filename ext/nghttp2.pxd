# What of nghttp2's interface (>= 1.50) the engine uses.
cdef extern from "nghttp2/nghttp2.h" nogil:
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass
    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags
    ctypedef struct nghttp2_headers:
        int cat
    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value
    ctypedef struct nghttp2_settings:
        size_t niv
        nghttp2_settings_entry* iv
    ctypedef struct nghttp2_priority_spec:
        int32_t stream_id
        int32_t weight
        uint8_t exclusive
    ctypedef struct nghttp2_window_update:
        int32_t window_size_increment
    ctypedef struct nghttp2_rst_stream:
        uint32_t error_code
    ctypedef struct nghttp2_data:
        size_t padlen               # with the byte that says so
    ctypedef struct nghttp2_goaway:
        uint32_t error_code
    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_data data
        nghttp2_headers headers
        nghttp2_settings settings
        nghttp2_window_update window_update
        nghttp2_rst_stream rst_stream
        nghttp2_goaway goaway
    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags
    ctypedef union nghttp2_data_source:
        int fd
        void* ptr
    ctypedef ssize_t (*nghttp2_data_source_read_callback)(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*,
                                                          void*) noexcept nogil
    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback
    ctypedef struct nghttp2_mem:
        void* mem_user_data
        void* (*malloc)(size_t, void*) noexcept nogil
        void (*free)(void*, void*) noexcept nogil
        void* (*calloc)(size_t, size_t, void*) noexcept nogil
        void* (*realloc)(void*, size_t, void*) noexcept nogil

    const int NGHTTP2_DATA
    const int NGHTTP2_HEADERS
    const int NGHTTP2_DATA_FLAG_NO_END_STREAM
    const int NGHTTP2_SETTINGS_ENABLE_PUSH
    const int NGHTTP2_PRIORITY
    const int NGHTTP2_RST_STREAM
    const int NGHTTP2_SETTINGS
    const int NGHTTP2_GOAWAY
    const int NGHTTP2_PING
    const int NGHTTP2_CONTINUATION
    const int NGHTTP2_WINDOW_UPDATE
    const int NGHTTP2_PRIORITY_UPDATE
    const int NGHTTP2_FLAG_NONE
    const int NGHTTP2_FLAG_END_STREAM
    const int NGHTTP2_FLAG_ACK
    const int NGHTTP2_FLAG_END_HEADERS
    const int NGHTTP2_HCAT_REQUEST
    const int NGHTTP2_NO_ERROR
    const int NGHTTP2_PROTOCOL_ERROR
    const int NGHTTP2_INTERNAL_ERROR
    const int NGHTTP2_REFUSED_STREAM
    const int NGHTTP2_CANCEL
    const int NGHTTP2_STREAM_CLOSED
    const int NGHTTP2_ENHANCE_YOUR_CALM
    const int NGHTTP2_ERR_REFUSED_STREAM
    const int NGHTTP2_ERR_CALLBACK_FAILURE
    const int NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    const int NGHTTP2_ERR_DEFERRED
    const int NGHTTP2_DATA_FLAG_EOF
    const int NGHTTP2_NV_FLAG_NO_INDEX
    const int NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    const int NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    const int NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    const int NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL
    const int NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
    int nghttp2_session_callbacks_new(nghttp2_session_callbacks** out)
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t,
                                               uint8_t, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_invalid_header_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t,
                                               uint8_t, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, int, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*) noexcept nogil)
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks* c, int (*f)(nghttp2_session*, int32_t, uint32_t, void*) noexcept nogil)
    int nghttp2_option_new(nghttp2_option** out)
    void nghttp2_option_set_no_auto_window_update(nghttp2_option* o, int value)
    void nghttp2_option_set_no_closed_streams(nghttp2_option* o, int value)
    void nghttp2_option_set_builtin_recv_extension_type(nghttp2_option* o, uint8_t kind)
    int nghttp2_session_server_new3(nghttp2_session** out, const nghttp2_session_callbacks* c, void* data, const nghttp2_option* o,
                                    nghttp2_mem* memory)
    int nghttp2_session_client_new3(nghttp2_session** out, const nghttp2_session_callbacks* c, void* data, const nghttp2_option* o,
                                    nghttp2_mem* memory)
    void nghttp2_session_del(nghttp2_session* s)
    ssize_t nghttp2_session_mem_recv(nghttp2_session* s, const uint8_t* data, size_t n)
    ssize_t nghttp2_session_mem_send(nghttp2_session* s, const uint8_t** out)
    int nghttp2_session_want_read(nghttp2_session* s)
    int nghttp2_session_want_write(nghttp2_session* s)
    int nghttp2_session_set_local_window_size(nghttp2_session* s, uint8_t flags, int32_t stream_id, int32_t size)
    int nghttp2_session_consume(nghttp2_session* s, int32_t stream_id, size_t n)
    int nghttp2_session_consume_connection(nghttp2_session* s, size_t n)
    int nghttp2_session_resume_data(nghttp2_session* s, int32_t stream_id)
    void* nghttp2_session_find_stream(nghttp2_session* s, int32_t stream_id)
    void* nghttp2_session_get_stream_user_data(nghttp2_session* s, int32_t stream_id)
    int nghttp2_session_set_stream_user_data(nghttp2_session* s, int32_t stream_id, void* data)
    int nghttp2_session_get_stream_remote_close(nghttp2_session* s, int32_t stream_id)
    int32_t nghttp2_session_get_stream_remote_window_size(nghttp2_session* s, int32_t stream_id)
    int32_t nghttp2_session_get_local_window_size(nghttp2_session* s)
    int32_t nghttp2_session_get_remote_window_size(nghttp2_session* s)
    int32_t nghttp2_session_get_last_proc_stream_id(nghttp2_session* s)
    int nghttp2_submit_settings(nghttp2_session* s, uint8_t flags, const nghttp2_settings_entry* entries, size_t n)
    int nghttp2_submit_rst_stream(nghttp2_session* s, uint8_t flags, int32_t stream_id, uint32_t code)
    int nghttp2_submit_shutdown_notice(nghttp2_session* s)
    int nghttp2_submit_goaway(nghttp2_session* s, uint8_t flags, int32_t last, uint32_t code, const uint8_t* data, size_t n)
    int nghttp2_submit_headers(nghttp2_session* s, uint8_t flags, int32_t stream_id, const nghttp2_priority_spec* how, const nghttp2_nv* nv,
                               size_t n, void* data)
    int32_t nghttp2_submit_request(nghttp2_session* s, const nghttp2_priority_spec* how, const nghttp2_nv* nv, size_t n,
                                   const nghttp2_data_provider* data, void* user)
    int nghttp2_submit_trailer(nghttp2_session* s, int32_t stream_id, const nghttp2_nv* nv, size_t n)
    int nghttp2_submit_response(nghttp2_session* s, int32_t stream_id, const nghttp2_nv* nv, size_t n, const nghttp2_data_provider* data)
