"""Reads forms by python-multipart, which FastAPI and with it most model servers use.

In: one JSON object a line, {"type": content type, "body": hex}, both as they stand in the request.
Out: one a line, {"models": [hex of each part named `model`], "error": text or null}.
"""

import io
import json
import sys

from python_multipart import parse_form


def read(content_type: str, body: bytes) -> dict:
    models: list[str] = []

    def field(field) -> None:
        if field.field_name == b"model":
            models.append((field.value or b"").hex())

    def file(file) -> None:
        if file.field_name == b"model":
            models.append("file")

    try:
        parse_form({"Content-Type": content_type.encode("latin-1")}, io.BytesIO(body), field, file)
    except Exception as error:
        return {"models": models, "error": repr(error)}
    return {"models": models, "error": None}


for line in sys.stdin:
    form = json.loads(line)
    print(json.dumps(read(form["type"], bytes.fromhex(form["body"]))))
