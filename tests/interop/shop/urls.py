"""Pages beside the admin: the basket in the session, a page with a script that fetches, downloads."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.http import require_POST

from tests.interop.shop.models import Article

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>Basket</title><link rel="icon" href="data:,"></head>
<body><h1>Basket</h1><p id="count">{count} in the basket</p>
<form method="post" action="/basket/add"><input type="hidden" name="csrfmiddlewaretoken" value="{token}">
<button id="add">Add one</button></form>
<p id="fetched">not yet</p><p id="streamed">not yet</p>
<script>
fetch("/basket/count").then((a) => a.json()).then((found) => {{
  document.getElementById("fetched").textContent = "fetched " + found.count;
}});
fetch("/basket/stream").then(async (answer) => {{
  let text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) text += piece;
  document.getElementById("streamed").textContent = "streamed " + text.length;
}});
</script></body></html>"""


def basket(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE.format(count=request.session.get("count", 0), token=get_token(request)))


@require_POST
def basket_add(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponseRedirect("/basket")


def basket_count(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"count": request.session.get("count", 0)})


def basket_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse((f"line {i}\n" for i in range(1000)), content_type="text/plain")


@login_required
def sheet(request: HttpRequest, number: int) -> FileResponse:
    article = get_object_or_404(Article, pk=number)
    return FileResponse(article.sheet.open("rb"), as_attachment=True, filename="sheet.bin")


def where(request: HttpRequest) -> JsonResponse:
    """Where the application believes to be."""
    return JsonResponse({"uri": request.build_absolute_uri("/x"), "secure": request.is_secure()})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("basket", basket),
    path("basket/add", basket_add),
    path("basket/count", basket_count),
    path("basket/stream", basket_stream),
    path("sheet/<int:number>", sheet),
    path("where", where),
]
