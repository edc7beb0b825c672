"""The admin pages of the shop."""

from __future__ import annotations

from django.contrib import admin

from tests.interop.shop.models import Article


@admin.register(Article)
class ArticleAdmin(admin.ModelAdmin):
    list_display = ("name", "price", "sheet")
    search_fields = ("name",)
