"""The application with the admin's static files. `python -m tests.interop.shop.serve` makes its database and user."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.interop.shop.settings")

from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

application = StaticFilesHandler(get_wsgi_application())


def prepare() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    get_user_model().objects.create_superuser("ada", "ada@shop.test", "let me in, please")


if __name__ == "__main__":
    prepare()
