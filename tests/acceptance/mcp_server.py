"""A small MCP server on standard input and output, with one tool that tells what is in its environment."""

import json
import os
import sys


def _answer(request: dict[str, object]) -> dict[str, object] | None:
    match request.get("method"):
        case "initialize":
            return {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "teller", "version": "1"},
            }
        case "tools/list":
            return {"tools": [{"name": "tell", "description": "Tells.", "inputSchema": {"type": "object", "properties": {}}}]}
        case "tools/call":
            return {"content": [{"type": "text", "text": f"its token is {os.environ['TELLER_TOKEN']}"}]}
        case _:
            return None


for line in sys.stdin:
    asked = json.loads(line)
    answer = _answer(asked)
    if "id" in asked:
        said = {"result": answer} if answer is not None else {"error": {"code": -32601, "message": "unknown"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}) + "\n")
        sys.stdout.flush()
