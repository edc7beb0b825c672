/* OpenSSL's macros as functions, and what is written in its own types: the BIO's flags, ALPN, stapling, the keys of session tickets.
   Owned by ext/tls.pyx and ext/tls_context.pyx. */
#ifndef SCRUBBER_TLS_H
#define SCRUBBER_TLS_H
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "OpenSSL 3.0 or later is needed (libssl-dev)"
#endif

/* TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 has nothing else. */
#define SCRUBBER_CIPHERS \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

static inline void scrubber_set_errno(int e) { errno = e; }

/* ── the BIO ── */

static inline int scrubber_bio_again(BIO *b) {
    BIO_set_retry_read(b);
    return -1;
}

static long scrubber_bio_ctrl(BIO *b, int what, long n, void *p) {
    (void)b, (void)n, (void)p;
    return what == BIO_CTRL_FLUSH; /* written at once; nothing else is known here */
}

static int scrubber_bio_create(BIO *b) {
    BIO_set_init(b, 1);
    return 1;
}

static BIO_METHOD *scrubber_bio_method(int (*read)(BIO *, char *, int), int (*write)(BIO *, const char *, int)) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "scrubber");
    if (m == NULL) return NULL;
    BIO_meth_set_read(m, read);
    BIO_meth_set_write(m, write);
    BIO_meth_set_ctrl(m, scrubber_bio_ctrl);
    BIO_meth_set_create(m, scrubber_bio_create);
    return m;
}

/* ── ALPN (RFC 7301) ── */

/* The best of what is offered here and there: h2, then http/1.1. Where nothing is in common the handshake fails (3.2). */
static int scrubber_alpn(const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned inlen, int h2, int http1) {
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    for (int turn = 0; turn < 2; turn++) {
        const unsigned char *name = turn == 0 ? ours + 1 : ours + 4;
        unsigned char length = turn == 0 ? 2 : 8;
        if (!(turn == 0 ? h2 : http1)) continue;
        for (unsigned i = 0; i < inlen && i + 1u + in[i] <= inlen; i += 1u + in[i])
            if (in[i] == length && memcmp(in + i + 1, name, length) == 0) {
                *out = in + i + 1;
                *outlen = length;
                return SSL_TLSEXT_ERR_OK;
            }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* ── OCSP stapling (RFC 6066 8) ── */

typedef struct {
    X509 *certificate; /* held by the context */
    unsigned char *data;
    int length;
} scrubber_staple;

typedef struct {
    int count;
    scrubber_staple staples[4];
} scrubber_staples;

static int scrubber_staple_give(SSL *ssl, void *given) {
    const scrubber_staples *all = given;
    const X509 *chosen = SSL_get_certificate(ssl);
    for (int i = 0; i < all->count; i++) {
        if (all->staples[i].certificate != chosen) continue;
        unsigned char *copy = OPENSSL_memdup(all->staples[i].data, (size_t)all->staples[i].length);
        if (copy == NULL) return SSL_TLSEXT_ERR_NOACK;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, all->staples[i].length); /* takes it over */
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static void scrubber_staples_use(SSL_CTX *context, scrubber_staples *all) {
    SSL_CTX_set_tlsext_status_cb(context, scrubber_staple_give);
    SSL_CTX_set_tlsext_status_arg(context, all);
}

/* ── session tickets (RFC 5077): AES-256-CBC, then HMAC-SHA-256 ── */

static EVP_CIPHER *scrubber_ticket_cipher;

static int scrubber_ticket_begin(const unsigned char *cipher_key, const unsigned char *mac_key, unsigned char *iv, EVP_CIPHER_CTX *c,
                                 EVP_MAC_CTX *m, int seal) {
    char digest[] = "SHA256";
    OSSL_PARAM how[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)mac_key, 32),
                        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    if (scrubber_ticket_cipher == NULL) scrubber_ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (scrubber_ticket_cipher == NULL || !EVP_MAC_CTX_set_params(m, how)) return 0;
    if (!seal) return EVP_DecryptInit_ex2(c, scrubber_ticket_cipher, cipher_key, iv, NULL);
    return RAND_bytes(iv, 16) == 1 && EVP_EncryptInit_ex2(c, scrubber_ticket_cipher, cipher_key, iv, NULL);
}

/* ── contexts ── */

static int scrubber_no_passphrase(char *out, int size, int sealing, void *given) {
    (void)out, (void)size, (void)sealing, (void)given;
    return -1;
}

/* What both sides have in common. */
static SSL_CTX *scrubber_context(int server) {
    SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (c == NULL) return NULL;
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(c, server ? SSL_SESS_CACHE_OFF : SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_default_passwd_cb(c, scrubber_no_passphrase);
    if (!SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) || !SSL_CTX_set_cipher_list(c, SCRUBBER_CIPHERS) ||
        !(SSL_CTX_set1_groups_list(c, "X25519MLKEM768:X25519:P-256:P-384") || SSL_CTX_set1_groups_list(c, "X25519:P-256:P-384"))) {
        SSL_CTX_free(c);
        return NULL;
    }
    ERR_clear_error();
    return c;
}

/* The certificate of a chain in PEM, then those above it; its key. NULL, or what is wrong. The certificate stays the context's. */
static const char *scrubber_use_chain(SSL_CTX *c, const void *chain, int chain_bytes, const void *key, int key_bytes, X509 **out) {
    const char *wrong = NULL;
    X509 *leaf = NULL, *above;
    EVP_PKEY *secret = NULL;
    BIO *text = BIO_new_mem_buf(chain, chain_bytes), *key_text = BIO_new_mem_buf(key, key_bytes);
    if (text == NULL || key_text == NULL)
        wrong = "no memory";
    else if ((leaf = PEM_read_bio_X509_AUX(text, NULL, scrubber_no_passphrase, NULL)) == NULL)
        wrong = "no certificate in PEM";
    else if ((secret = PEM_read_bio_PrivateKey(key_text, NULL, scrubber_no_passphrase, NULL)) == NULL)
        wrong = "no private key in PEM, or one with a passphrase";
    else if (!SSL_CTX_use_certificate(c, leaf))
        wrong = "a certificate that OpenSSL does not take";
    else if (!SSL_CTX_use_PrivateKey(c, secret) || !SSL_CTX_check_private_key(c))
        wrong = "the key is not the certificate's";
    else {
        SSL_CTX_clear_chain_certs(c);
        while ((above = PEM_read_bio_X509(text, NULL, scrubber_no_passphrase, NULL)) != NULL)
            if (!SSL_CTX_add0_chain_cert(c, above)) {
                X509_free(above);
                wrong = "a chain that OpenSSL does not take";
                break;
            }
        *out = SSL_CTX_get0_certificate(c);
    }
    ERR_clear_error(); /* the end of the PEM text */
    X509_free(leaf);
    EVP_PKEY_free(secret);
    BIO_free(text);
    BIO_free(key_text);
    return wrong;
}

/* Certificates in PEM that are trusted; as a server their names are what a client is asked for. How many there are. */
static int scrubber_trust(SSL_CTX *c, const void *pem, int bytes, int server) {
    BIO *text = BIO_new_mem_buf(pem, bytes);
    X509_STORE *store = SSL_CTX_get_cert_store(c);
    X509 *each;
    int count = 0;
    if (text == NULL) return 0;
    while ((each = PEM_read_bio_X509_AUX(text, NULL, scrubber_no_passphrase, NULL)) != NULL) {
        if (X509_STORE_add_cert(store, each) && (!server || SSL_CTX_add_client_CA(c, each))) count++;
        X509_free(each);
    }
    ERR_clear_error();
    BIO_free(text);
    return count;
}

static void scrubber_session_id(SSL_CTX *c, const unsigned char *digest) { SSL_CTX_set_session_id_context(c, digest, 32); }

/* Whom a server's certificate has to name: a host, or an address. 0: no memory, or no name. */
static int scrubber_expect(SSL *ssl, const char *name) {
    X509_VERIFY_PARAM *how = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(how, name)) return 1;
    ERR_clear_error();
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) && SSL_set_tlsext_host_name(ssl, name);
}

/* ── a connection ── */

static inline void scrubber_set_data(SSL *ssl, void *data) { SSL_set_app_data(ssl, data); }
static inline void *scrubber_data(const SSL *ssl) { return SSL_get_app_data(ssl); }
static inline void scrubber_only_13(SSL *ssl) { SSL_set_min_proto_version(ssl, TLS1_3_VERSION); }
static inline void scrubber_done(SSL *ssl) { SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); }

/* The subject of the client's verified certificate as RFC 4514 has it; bytes written, 0: none, or it does not fit. */
static unsigned scrubber_subject(SSL *ssl, unsigned char *out, unsigned room) {
    X509 *peer = SSL_get0_peer_certificate(ssl);
    BIO *text;
    char *data = NULL;
    long n = 0;
    if (peer == NULL || SSL_get_verify_result(ssl) != X509_V_OK || (text = BIO_new(BIO_s_mem())) == NULL) return 0;
    if (X509_NAME_print_ex(text, X509_get_subject_name(peer), 0, XN_FLAG_RFC2253) > 0) n = BIO_get_mem_data(text, &data);
    if (n > 0 && (unsigned long)n <= room)
        memcpy(out, data, (size_t)n);
    else
        n = 0;
    BIO_free(text);
    return (unsigned)n;
}
#endif
