"""Meta's Graph API for WhatsApp, as far as a business back end talks to it: one module per noun.

`app.py` takes a request apart and finds its noun; `world.py` holds what there is. Everything is in memory and bounded.
What Meta checks is checked, in Meta's words and codes; what only Meta can know (quality, spam, experiments) is injected
through `PUT /sandbox/faults` or told by the story.
Source: ../shared/spec/whatsapp-cloud-api.md sections 4 to 6, read 2026-11-22; wording marked "made up" there is ours.
"""
