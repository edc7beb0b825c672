"""The application's name, as its tables and addresses have it."""

from __future__ import annotations

from django.apps import AppConfig


class Shop(AppConfig):
    name = "tests.interop.shop"
    label = "shop"
