"""What to do about a worker that cannot be used, by what the error table says of it."""

import re

REMEDIES = (
    (r"HTTP (401|402|403|407)|api[ _]key|authentication", "give its key with api_key_env, or see whom it lets in"),
    (r"not known to DNS|not a valid (host name|address)|not an HTTP address", "correct `host`"),
    (
        r"within the connect timeout|no answer within",
        "is that machine awake and in this network, and no firewall shut?",
    ),
    (
        r"no connection|connection (failed|was reset)|closed the connection",
        "is the server running, at this port, and open to other machines (not on 127.0.0.1 alone)?",
    ),
    (
        r"web page|not JSON|not with a list of models|not valid HTTP|redirects|proxy",
        "another program is there: correct `port`",
    ),
    (r"certificate|TLS", "correct `scheme`: https for servers with a trusted certificate, else http"),
    (r"has no model\b|has not the model", "load the model in the server, or correct `model`"),
    (r"HTTP 503|still (starting|loading)|busy", "it is busy or loading: try again in a minute"),
    (r"no model file|does not start|needs llama\.cpp", ""),
)
"""The first that fits counts; where the error names the remedy itself, none is added."""

ELSE = "see the server's own log"


def remedy_for(error: str) -> str:
    """What to do about it; empty where the error says so itself."""
    return next((remedy for words, remedy in REMEDIES if re.search(words, error, re.IGNORECASE)), ELSE)
