"""The languages templates can be in.

Only the language is compared, not the country: Meta adds countries without notice (en_GH, es_VE), and refuses at once
what it does not have. Source: Meta, "Supported languages", by way of pywa 4.5.0 (`TemplateLanguage`).
"""

_CODES = (
    "af ar az be bg bn ca cs da de el en es et fa fi fil fr ga gu ha he hi hr hu id it ja ka kk kn ko ky lo lt lv "
    "mk ml mr ms nb nl pa pl prs ps pt ro ru rw si sk sl sq sr sv sw ta te th tr uk ur uz vi zh zu"
)
LANGUAGES = frozenset(_CODES.split())

WITHOUT_SPACES = frozenset({"ja", "lo", "th", "zh"})  # no blanks between words: words cannot be counted by them
