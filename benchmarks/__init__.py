"""Benchmarks: one program per question. benchmarks/record.py says what a record holds."""
