"""The local inbox: an SMTP server that delivers nothing, and a page that shows what came in.

`make run` starts it beside the API and a worker; a caller's own tests may start it alone and ask its JSON
API what was sent. It knows mail and nothing of Postroom's ledger: whoever starts it may hand it a function
that finds the `client_ref` of a message.
"""
