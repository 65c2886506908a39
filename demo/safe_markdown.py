"""A model's answer as HTML that can do nothing: CommonMark without raw HTML, pictures or odd links."""

import html
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_SCHEMES = ("http://", "https://", "mailto:")


def safe_html(markdown: str) -> str:
    """``markdown`` as HTML. Its own tags are shown as text, and nothing in it is fetched before a click."""
    return str(_PARSER.render(markdown))


def escaped(text: str) -> str:
    """``text`` as it stands, for HTML."""
    return html.escape(text)


def _link_open(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any) -> str:
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, index, options, environment)


def _parser() -> MarkdownIt:
    """Pictures are read as links to them: nothing is fetched. Headings begin below the page's own."""
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").enable("strikethrough")
    parser.disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: url.lower().startswith(_SCHEMES)  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _link_open)
    for rule in ("heading_open", "heading_close"):
        parser.add_render_rule(rule, _lower_heading)
    return parser


def _lower_heading(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, environment: Any
) -> str:
    tokens[index].tag = f"h{min(6, int(tokens[index].markup.count('#') or 1) + 3)}"
    return renderer.renderToken(tokens, index, options, environment)


_PARSER = _parser()
