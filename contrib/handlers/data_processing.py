"""Reads a CSV or JSONL file, filters, selects, sums by group, and writes another one.

    ADD type=custom payload={"input":"/data/orders.csv","output":"/data/by-country.jsonl",
        "filter":{"state":"paid","amount":{">=":10}},"group_by":["country"],"sum":["amount"]}
        @daily data_processing

    input      a file .csv (its first line names the columns) or .jsonl (an object a line)
    output     the same; it is replaced in one step, when all is well and on disk, and keeps its
               mode; a new one is for its owner only
    filter     {"column": value}, or {"column": {"op": value}} with = != < <= > >= in contains;
               all must hold. Numbers are compared as numbers, also those in CSV
    select     ["column", …]: only these, in this order
    group_by   ["column", …]: a row for each group, in the order in which they first came, with `count`
    sum        ["column", …]: of these, the sum in each group; exact, since it reckons in decimals

The result is {"read": …, "kept": …, "written": …}. A line that cannot be read, or a number that is
none, ends it with the line's number, and the output stays as it was. Rows are read one by one: only
the groups are held in memory.
"""

import csv
import json
import operator
import os
import tempfile
from decimal import Decimal, InvalidOperation
from pathlib import Path

OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def handle(data, context):
    source = Path(data["input"])
    counts = {"read": 0, "kept": 0, "written": 0}
    rows = keep(read(source, context, counts), data.get("filter", {}), counts)
    if "group_by" in data:
        rows = group(rows, data["group_by"], data.get("sum", []))
    elif "sum" in data:
        raise ValueError("sum wants group_by; for one sum of all: []")
    if "select" in data:
        rows = ({column: row.get(column) for column in data["select"]} for _, row in rows)
    else:
        rows = (row for _, row in rows)
    write(Path(data["output"]), rows, counts)
    context.log("{read} rows read, {kept} kept, {written} written".format(**counts))
    return counts


def read(path, context, counts):
    """(line, row) for each row."""
    size = path.stat().st_size or 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = read_csv(file) if is_csv(path) else read_jsonl(file)
        for line, row in rows:
            counts["read"] += 1
            if counts["read"] % 10_000 == 0:
                context.check_cancelled()
                context.progress(file.buffer.tell() / size)
            yield line, row


def read_csv(file):
    reader = csv.DictReader(file, strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num}: {len(reader.fieldnames)} columns were expected")
        yield reader.line_num, row


def read_jsonl(file):
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        if not isinstance(row, dict):
            raise TypeError(f"line {line}: it is no object")
        yield line, row


def is_csv(path):
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{path}: it is neither .csv nor .jsonl")
    return path.suffix == ".csv"


def keep(rows, wanted, counts):
    for line, row in rows:
        if all(holds(row.get(column), test) for column, test in wanted.items()):
            counts["kept"] += 1
            yield line, row


def holds(value, test):
    tests = test if isinstance(test, dict) else {"=": test}
    return all(holds_one(value, word, other) for word, other in tests.items())


def holds_one(value, word, other):
    if word == "in":
        return any(holds_one(value, "=", each) for each in other)
    if word == "contains":
        return str(other) in str(value)
    left, right = number(value), number(other)
    if left is None or right is None:
        if value is None and word not in ("=", "!="):
            return False
        left, right = (value, other) if None in (value, other) else (str(value), str(other))
    return OPERATORS[word](left, right)


def number(value):
    """The value as a number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def group(rows, by, sums):
    groups = {}
    for line, row in rows:
        key = tuple(row.get(column) for column in by)
        found = groups.setdefault(key, {"count": 0, **dict.fromkeys(sums, Decimal(0))})
        found["count"] += 1
        for column in sums:
            value = number(row.get(column))
            if value is None:
                raise ValueError(f"line {line}: {column} is {row.get(column)!r}, which is no number")
            found[column] += value
    for key, found in groups.items():
        yield 0, dict(zip(by, key, strict=True)) | found


def write(path, rows, counts):
    """Into a file beside it, which takes its place when it is whole and on disk."""
    put = put_csv if is_csv(path) else put_jsonl
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8", newline=""
    ) as file:
        try:
            put(file, rows, counts)
            file.flush()
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
    sync_directory(path.parent)


def put_csv(file, rows, counts):
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        counts["written"] += 1


def put_jsonl(file, rows, counts):
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False, default=plain) + "\n")
        counts["written"] += 1


def plain(value):
    """A decimal as JSON's number."""
    return int(value) if value == value.to_integral_value() else float(value)


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
