"""The types that the package says it has are those that it has."""

import os
import subprocess
import sys
import types
from pathlib import Path

import balrog


def test_a_task_is_generic():
    assert isinstance(balrog.Task[int], types.GenericAlias)
    assert balrog.Task[int].__origin__ is balrog.Task


def test_the_typed_program_runs():
    path = Path(__file__).with_name("typed.py")
    subprocess.run([sys.executable, str(path)], check=True, timeout=60, env=os.environ)
