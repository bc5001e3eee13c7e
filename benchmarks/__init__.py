"""Benchmarks: one program per question. benchmarks/record.py describes a record."""
