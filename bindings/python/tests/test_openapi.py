"""Requests made up from the server's own OpenAPI description: none is answered with a server error,
and every answer is one that the description promises."""

from __future__ import annotations

import hypothesis
import schemathesis
from conftest import DEMO
from fastapi import FastAPI
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

import dasan
from dasan.server.app import create_app

# The engine lives as long as the module: schemathesis calls the application in this process.
_engine = dasan.Engine(DEMO, max_sequences=4, kv_bytes=8 << 20, threads=1)
_app: FastAPI = create_app(_engine)
schema = schemathesis.openapi.from_asgi("/openapi.json", _app)


@schema.parametrize()
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_no_server_error_and_no_undocumented_answer(case: schemathesis.Case) -> None:
    if isinstance(case.body, dict):
        # Made-up names would only find the 404; every other case names the model.
        if len(str(case.body)) % 2:
            case.body["model"] = "dasan demonstration"
        if isinstance(case.body.get("max_tokens"), int):
            case.body["max_tokens"] = min(case.body["max_tokens"], 8)
    response = case.call()
    assert response.status_code != 500, response.text
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance, content_type_conformance])
