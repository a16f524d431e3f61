#!/usr/bin/env python3
"""Builds the data sets that are part of the program, from packages of PyPI and nothing else.

    python3.11 -m venv venv && venv/bin/pip install -r datasets/requirements.txt
    venv/bin/python datasets/make.py            writes the Parquet files beside this script
    venv/bin/python datasets/make.py --check    builds them in a temporary folder and compares

The same versions of the packages give the same bytes: no time, no path and no order of a hash goes into
a file. After a change, copy the printed numbers into index.toml and SOURCES.md, then run --check, which

1. reads each file back and compares every cell with the text in the package's own data file,
2. compares rows, columns, bytes and SHA-256 with index.toml, and
3. compares the bytes with the file beside this script.

Exit status: 0 all is well, 1 something differs, 2 a package is missing or has another version.
"""

import argparse
import csv
import gzip
import hashlib
import re
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent


def require_versions():
    """Stops unless the packages of requirements.txt are installed in exactly these versions."""
    wrong = []
    for line in (HERE / "requirements.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        package, wanted = line.split("==")
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{package} must be {wanted}, it is {found}")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        print(f"pip install -r {HERE / 'requirements.txt'}", file=sys.stderr)
        sys.exit(2)


require_versions()

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from sklearn import datasets as sk  # noqa: E402


# The packages' data files, as text.


def lines(package, path):
    """Rows of cells of a CSV file inside an installed package, without importing the package."""
    file = Path(metadata.distribution(package).locate_file(path))
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


def sklearn_lines(file, classes=None):
    """Rows of one of scikit-learn's files; the code in the last cell is replaced by the class's name.

    Files with named classes have a line of counts and names first.
    """
    rows = lines("scikit-learn", f"sklearn/datasets/data/{file}")
    if classes is None:
        return rows
    if rows[0][2:] != classes:
        sys.exit(f"{file}: classes are {rows[0][2:]}, expected {classes}")
    return [row[:-1] + [classes[int(row[-1])]] for row in rows[1:]]


def penguin_lines():
    """The penguins that have all four measurements: 342 of 344; two have none."""
    header, *rows = lines("palmerpenguins", "palmerpenguins/data/penguins.csv")
    measured = [header.index(name) for name in PENGUIN_MEASUREMENTS]
    return [row for row in rows if all(row[i] != MISSING["penguins"] for i in measured)]


def titanic_lines():
    return lines("bokeh-sampledata", "bokeh_sampledata/_data/titanic_all.csv")[1:]


IRIS_CLASSES = ["setosa", "versicolor", "virginica"]
WINE_CLASSES = ["class_0", "class_1", "class_2"]
BREAST_CANCER_CLASSES = ["malignant", "benign"]
PENGUIN_MEASUREMENTS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]

# What each file's own text is, for the comparison after the file is read back.
TEXT = {
    "digits": lambda: sklearn_lines("digits.csv.gz"),
    "iris": lambda: sklearn_lines("iris.csv", IRIS_CLASSES),
    "wine": lambda: sklearn_lines("wine_data.csv", WINE_CLASSES),
    "breast-cancer": lambda: sklearn_lines("breast_cancer.csv", BREAST_CANCER_CLASSES),
    "penguins": penguin_lines,
    "titanic": titanic_lines,
}
# How the file writes an empty cell.
MISSING = {"penguins": "NA", "titanic": ""}


# The tables.


def snake(name):
    """`sepal length (cm)` becomes `sepal_length_cm`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def table(columns):
    """A table of (name, type, values); a column is nullable only if a value is missing."""
    fields = [pa.field(name, kind, None in values) for name, kind, values in columns]
    arrays = [pa.array(values, kind) for _, kind, values in columns]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def classified(bunch, label, classes):
    """One of scikit-learn's classification sets: measurements as they are, the class by its name."""
    if [str(name) for name in bunch.target_names] != classes:
        sys.exit(f"classes are {bunch.target_names}, expected {classes}")
    columns = [
        (snake(name), pa.float64(), bunch.data[:, i].tolist())
        for i, name in enumerate(bunch.feature_names)
    ]
    names = [classes[code] for code in bunch.target]
    return table(columns + [(label, pa.string(), names)])


def digits():
    """8 x 8 pixels from 0 to 16, row by row: whole numbers, so a byte each."""
    bunch = sk.load_digits()
    if (bunch.data != bunch.data.astype("uint8")).any():
        sys.exit("digits: a pixel is no whole number")
    pixels = bunch.data.astype("uint8")
    columns = [(name, pa.uint8(), pixels[:, i].tolist()) for i, name in enumerate(bunch.feature_names)]
    return table(columns + [("digit", pa.int8(), bunch.target.tolist())])


def converted(rows, missing, kinds):
    """A table from rows of text; `kinds` names each column's type in order."""
    convert = {pa.string(): str, pa.float64(): float}
    columns = []
    for (name, kind), cells in zip(kinds.items(), zip(*rows, strict=True), strict=True):
        read = convert.get(kind, int)
        columns.append((name, kind, [None if cell == missing else read(cell) for cell in cells]))
    return table(columns)


def penguins():
    kinds = {
        "species": pa.string(),
        "island": pa.string(),
        "bill_length_mm": pa.float64(),
        "bill_depth_mm": pa.float64(),
        "flipper_length_mm": pa.uint8(),
        "body_mass_g": pa.int16(),
        "sex": pa.string(),
        "year": pa.int16(),
    }
    return converted(penguin_lines(), MISSING["penguins"], kinds)


def titanic():
    kinds = {
        "name": pa.string(),
        "class": pa.string(),
        "age": pa.float64(),
        "sex": pa.string(),
        "survived": pa.int8(),
    }
    return converted(titanic_lines(), MISSING["titanic"], kinds)


TABLES = {
    "digits": digits,
    "iris": lambda: classified(sk.load_iris(), "species", IRIS_CLASSES),
    "wine": lambda: classified(sk.load_wine(), "cultivar", WINE_CLASSES),
    "breast-cancer": lambda: classified(sk.load_breast_cancer(), "diagnosis", BREAST_CANCER_CLASSES),
    "penguins": penguins,
    "titanic": titanic,
}


# Writing and checking.


def write(name, folder):
    """Builds one data set and writes it whole or not at all."""
    path = folder / f"{name}.parquet"
    part = path.with_suffix(".part")
    pq.write_table(
        TABLES[name](),
        part,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=19,
        # Neither is of use for tables this small, and both take space.
        write_statistics=False,
        store_schema=False,
    )
    part.replace(path)
    return path


def facts(path):
    """What index.toml says of a file."""
    content = path.read_bytes()
    shape = pq.read_metadata(path)
    return {
        "rows": shape.num_rows,
        "columns": shape.num_columns,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def same(cell, value, missing):
    """Whether a stored value is exactly what the text says."""
    if value is None:
        return cell == missing
    if isinstance(value, str):
        return cell == value
    return float(cell) == value


def differences(path, name):
    """Cells of the file that are not what the package's text says."""
    found = pq.read_table(path)
    text = TEXT[name]()
    if len(text) != found.num_rows:
        return [f"{found.num_rows} rows, the source has {len(text)}"]
    result = []
    for column, cells in zip(found.column_names, zip(*text, strict=True), strict=True):
        values = found.column(column).to_pylist()
        for row, (cell, value) in enumerate(zip(cells, values, strict=True), 1):
            if not same(cell, value, MISSING.get(name)):
                result.append(f"column {column}, row {row}: {value!r}, the source has {cell!r}")
    return result


def check():
    """All that is wrong, in words."""
    index = tomllib.loads((HERE / "index.toml").read_text(encoding="utf-8"))["set"]
    stated = {entry["name"]: entry for entry in index if entry.get("embedded", False)}
    problems = [f"{name}: is in index.toml only" for name in stated if name not in TABLES]
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            path = write(name, Path(folder))
            problems += [f"{name}: {text}" for text in differences(path, name)]
            if name not in stated:
                problems.append(f"{name}: is not in index.toml as embedded")
                continue
            for key, value in facts(path).items():
                if stated[name][key] != value:
                    problems.append(f"{name}: {key} is {value}, index.toml says {stated[name][key]}")
            kept = HERE / stated[name]["file"]
            if not kept.is_file() or kept.read_bytes() != path.read_bytes():
                problems.append(f"{name}: {kept.name} beside this script is missing or differs")
    return problems


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    if parser.parse_args().check:
        problems = check()
        print("\n".join(problems) or f"{len(TABLES)} data sets: as in the packages and in index.toml")
        return 1 if problems else 0
    for name in TABLES:
        for key, value in facts(write(name, HERE)).items():
            print(f"{name:14}{key} = {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
