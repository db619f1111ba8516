"""Settings of the food delivery: those of ``django-admin startproject`` but for two lines, marked `balrog`."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# An example has no secrets. A real site takes this one from its environment.
SECRET_KEY = "django-insecure-food-delivery-example"
DEBUG = os.environ.get("DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "delivery",
]
INSTALLED_APPS += ["balrog.django"]  # balrog

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "food_delivery.urls"
WSGI_APPLICATION = "food_delivery.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": os.environ.get("DATABASE_ENGINE", "balrog.django.postgresql"),  # balrog
        "NAME": os.environ.get("PGDATABASE", "food_delivery"),
        "USER": os.environ.get("PGUSER", ""),
        "HOST": os.environ.get("PGHOST", ""),
        "PORT": os.environ.get("PGPORT", ""),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"

# The service that cooks: an order is posted there, and it answers when it will be ready.
KITCHEN_SERVICE = os.environ.get("KITCHEN_SERVICE", "http://127.0.0.1:8001/orders")
# Seconds that a customer waits for the kitchen at most.
KITCHEN_TIMEOUT = float(os.environ.get("KITCHEN_TIMEOUT", "30"))

# A customer without an open WebSocket (or a server without any) gets the answer alone.
BALROG = {"WEBSOCKET_MISSING": "count"}
