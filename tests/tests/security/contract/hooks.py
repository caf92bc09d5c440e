"""What schemathesis is not told by the document: hostd's media types, and a check."""

import json

import jsonschema_rs
import schemathesis

LINES = "application/jsonl"

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")


@schemathesis.check
def lines_conform(ctx, response, case):
    """Each line of a stream is what the document says of one."""
    kind = response.headers.get("content-type", [""])[0]
    if kind != LINES:
        return
    document = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method.lower()]
    content = operation["responses"][str(response.status_code)]["content"]
    schema = content[LINES]["schema"] | {"components": document["components"]}
    validator = jsonschema_rs.validator_for(schema)
    for line in response.content.splitlines():
        for error in validator.iter_errors(json.loads(line)):
            raise AssertionError(f"{line}: {error.message}")


@schemathesis.check
def failures_are_told(ctx, response, case):
    """Whatever is no success has the body that the document says each failure has."""
    if response.status_code >= 400 and case.method != "HEAD":
        error = json.loads(response.content)
        assert error.keys() <= {"kind", "message", "hint"}, error
        assert error["kind"] and error["message"], error
