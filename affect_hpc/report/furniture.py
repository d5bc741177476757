"""What the pages of all reports share: one file each, that needs nothing from outside."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from affect_hpc.report.differences import Difference, by_kind
from affect_hpc.report.facts import Fact, scalars, terms


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    anchor: str
    name: str
    """In the bar of links."""
    heading: str
    body: str
    """HTML."""


def text(content: str) -> str:
    """Text as HTML."""
    return html.escape(content)


def data_uri(content: bytes, kind: str) -> str:
    """An image as the text that a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def document(title: str, heading: str, lead: str, sections: Sequence[Section], cards: str = "", style: str = "") -> str:
    """The whole index.html.

    Args:
        title: of the sweep.
        lead: one paragraph below the heading.
        cards: HTML of the headline figures.
        style: CSS besides page.css.
    """
    links = "".join(f'<a href="#{section.anchor}">{text(section.name)}</a>' for section in sections)
    body = [
        f'<header><p class="over">{text(title)}</p><h1>{text(heading)}</h1>',
        f'<p class="lead">{text(lead)}</p>',
        f"<nav>{links}</nav>",
        f'<div class="cards">{cards}</div></header><main>',
        *(
            f'<section id="{section.anchor}"><h2>{text(section.heading)}</h2>{section.body}</section>'
            for section in sections
        ),
        "</main><footer>Made by the stage report. Equal inputs give this page again, byte for byte.</footer>",
    ]
    css = files("affect_hpc.report").joinpath("page.css").read_text() + style
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} – {text(heading)}</title><style>{css}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def picture(uri: str, description: str, link: str) -> str:
    """An image in a frame, with a link to its file beside the page."""
    return f'<figure class="picture"><a href="{text(link)}"><img src="{uri}" alt="{text(description)}"></a></figure>'


def card(name: str, figure: str, note: str) -> str:
    """One headline figure; ``figure`` is HTML."""
    return (
        f'<div class="card"><div class="name">{text(name)}</div><div class="figure">{figure}</div>'
        f'<div class="note">{text(note)}</div></div>'
    )


def notes(items: Sequence[str], facts: Sequence[Fact]) -> str:
    """A list of remarks, and the terms of use that come with the data."""
    licences = "".join(f"<li>{text(entry)}</li>" for entry in terms(facts))
    below = f"<h3>Terms of use</h3><ul>{licences}</ul>" if licences else ""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + f"</ul>{below}"


def runs(facts: Sequence[Fact]) -> str:
    """A box per kind of run: with all its figures where there is one, as a list where there are many."""
    kinds = list(dict.fromkeys(fact.title for fact in facts))
    blocks = [_run_box(title, [fact for fact in facts if fact.title == title]) for title in kinds]
    return (
        '<p class="soft">A run is named by what it computed: stage, config and inputs. Equal names are equal '
        f'results.</p><div class="runs">{"".join(blocks)}</div>'
    )


def _run_box(title: str, facts: Sequence[Fact]) -> str:
    if len(facts) == 1:
        name = f"<code>{text(facts[0].run)}</code>"
        pairs = scalars(facts[0].content)
        inner = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in pairs)
        more = f"<details><summary>Figures and settings</summary><dl>{inner}</dl></details>" if inner else ""
    else:
        name = f'<span class="small">{len(facts)} runs</span>'
        described = ["; ".join(f"{key} {value}" for key, value in scalars(fact.content)) for fact in facts]
        lines = [
            f"<li><code>{text(fact.run)}</code> {text(line)}</li>" for fact, line in zip(facts, described, strict=True)
        ]
        more = f'<details><summary>Names and settings</summary><ul class="small">{"".join(lines)}</ul></details>'
    return f'<div class="run"><div class="line"><b>{text(title)}</b>{name}</div>{more}</div>'


def what_differs(found: Sequence[Difference]) -> str:
    """What makes figures differ from the thesis', by kind."""
    items = "".join(
        f"<li><b>{kind}</b>: {text('; '.join(sentences))}</li>" for kind, sentences in by_kind(found).items()
    )
    return f'<details open><summary>What differs from the thesis</summary><ul class="small">{items}</ul></details>'
