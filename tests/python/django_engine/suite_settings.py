"""Settings for Django's own tests: two databases on the private server, by the engine under test."""

import os

import django

_database = {
    "ENGINE": os.environ["SUITE_ENGINE"],
    "HOST": os.environ["PGHOST"],
    "USER": os.environ["PGUSER"],
}
DATABASES = {
    "default": {**_database, "NAME": "suite"},
    "other": {**_database, "NAME": "suite_other"},
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if django.VERSION < (6,):  # as in the settings that Django's own runs use
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
