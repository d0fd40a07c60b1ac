"""The tables of a store, and the checksum that each of their rows carries."""

import json
import sqlite3
import zlib
from typing import Any

__all__ = ["SCHEMA", "SEALED", "VERSION", "seal", "upgrade"]

VERSION = 2
"""Since 2 rows carry checksums."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, parts TEXT NOT NULL, answer TEXT NOT NULL, session TEXT NOT NULL,
  created REAL NOT NULL, seal INTEGER);
CREATE TABLE IF NOT EXISTS verdicts (
  key TEXT PRIMARY KEY, judge TEXT NOT NULL, verdict TEXT NOT NULL, created REAL NOT NULL, seal INTEGER);
CREATE TABLE IF NOT EXISTS cells (
  cell TEXT PRIMARY KEY, parts TEXT NOT NULL, metric REAL, n INTEGER NOT NULL, created REAL NOT NULL, seal INTEGER,
  content INTEGER, placed INTEGER);
CREATE TABLE IF NOT EXISTS samples (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prompt TEXT NOT NULL, response TEXT NOT NULL,
  PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS prefixes (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prefix TEXT NOT NULL, PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS categories (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, category TEXT NOT NULL, seal INTEGER, PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS points (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prompt INTEGER NOT NULL, direction INTEGER NOT NULL, alpha REAL NOT NULL,
  logprob REAL NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS assignments (
  run TEXT NOT NULL, name TEXT NOT NULL, cell TEXT, status TEXT NOT NULL, seal INTEGER, PRIMARY KEY (run, name));
CREATE TABLE IF NOT EXISTS judges (
  run TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, decides TEXT NOT NULL, identity TEXT NOT NULL,
  seal INTEGER, PRIMARY KEY (run, position));
CREATE TABLE IF NOT EXISTS sheets (
  sheet TEXT PRIMARY KEY, run TEXT NOT NULL, about TEXT NOT NULL, created REAL NOT NULL, seal INTEGER);
CREATE TABLE IF NOT EXISTS labels (
  sheet TEXT NOT NULL, item TEXT NOT NULL, reviewer TEXT NOT NULL, label TEXT NOT NULL, note TEXT NOT NULL,
  created REAL NOT NULL, seal INTEGER, PRIMARY KEY (sheet, item, reviewer));
"""
SEALED = {
    "responses": ("key", "answer"),
    "verdicts": ("key", "verdict"),
    "cells": ("cell", "parts", "metric", "n"),
    "categories": ("cell", "doc_id", "category"),
    "assignments": ("run", "name", "cell", "status"),
    "judges": ("run", "position", "name", "decides", "identity"),
    "sheets": ("sheet", "run", "about"),
    "labels": ("sheet", "item", "reviewer", "label", "note"),
}
"""Table -> the columns that a row's `seal` is the checksum of. The samples of a cell have one in common, which is the
cell's `content`, and so have its points: `placed`."""


def seal(*values: Any, after: int = 0) -> int:
    """CRC-32 of values of a row.

    Args:
        values: text, numbers or None; -0.0 counts as 0.0, since SQLite keeps it as that.
        after: that of the rows before, where several have one in common.
    """
    kept = [value + 0.0 if isinstance(value, float) else value for value in values]
    return zlib.crc32(json.dumps(kept).encode(), after)


def upgrade(database: sqlite3.Connection) -> None:
    """Gives the tables of version 1 their columns; rows from then have no checksum, which is never wrong."""
    for table in SEALED:
        known = [row[1] for row in database.execute(f"PRAGMA table_info({table})").fetchall()]
        for column in ("seal", *(["content", "placed"] if table == "cells" else [])):
            if known and column not in known:
                database.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
