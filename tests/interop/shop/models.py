"""What the shop keeps."""

from __future__ import annotations

from django.db import models


class Article(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    sheet = models.FileField(upload_to="sheets", blank=True)

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.name
