"""How the page looks, and what Gradio is told when it serves it."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from trimtab.demo.closed_api import closed_api

_HERE = Path(__file__).parent
_FONT = ("Inter", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")
# A rudder with its trim tab.
MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 38 38">'
    '<rect width="38" height="38" rx="11" fill="#0f766e"/>'
    '<path d="M10 8h9a2 2 0 0 1 2 2v13a7 7 0 0 1-7 7h-2a2 2 0 0 1-2-2z" fill="#fff"/>'
    '<rect x="23" y="17" width="5" height="13" rx="2" fill="#fff" transform="rotate(-18 23 17)"/></svg>'
)
MOST_TASKS = 1000  # answers that stream at once, over all visitors


def look() -> dict[str, Any]:
    """Arguments of ``launch`` and of ``gr.mount_gradio_app``: theme, style sheet, keyboard, icon, no footer."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    icon = f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(MARK)}">'
    return {
        "theme": theme(),
        "css_paths": _HERE / "page.css",
        "head": f"{icon}<script>{script}</script>",
        "footer_links": [],
    }


def serving(open_api: bool = False) -> dict[str, Any]:
    """Arguments of ``launch`` that keep a page closed: no share link, no API unless asked, bounded files."""
    return {
        "app_kwargs": {} if open_api else {"middleware": closed_api()},
        "share": False,
        "quiet": True,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "max_file_size": "20mb",
        "max_threads": MOST_TASKS,
        "strict_cors": True,
    }


def theme() -> gr.themes.Base:
    """Calm greys, one teal; contrasts of at least 4.5 to 1 in light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=list(_FONT),
        font_mono=list(_MONO),
    ).set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0f1419",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171d24",
        background_fill_secondary="#f6f7f9",
        background_fill_secondary_dark="#11171d",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        body_text_color="#17202b",
        body_text_color_dark="#e7ecf1",
        body_text_color_subdued="#556170",
        body_text_color_subdued_dark="#a0acb9",
        block_info_text_color="#556170",
        block_info_text_color_dark="#a0acb9",
        border_color_primary="#dfe4ea",
        border_color_primary_dark="#2a333d",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#171d24",
        input_border_color="#c3cbd5",
        input_border_color_dark="#3a4550",
        input_placeholder_color="#667382",
        input_placeholder_color_dark="#93a0ad",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1f2730",
        button_secondary_background_fill_hover="#eef1f4",
        button_secondary_background_fill_hover_dark="#2a333d",
        button_secondary_text_color="#17202b",
        button_secondary_text_color_dark="#e7ecf1",
        button_cancel_background_fill="#b42318",
        button_cancel_background_fill_dark="#b42318",
        button_cancel_background_fill_hover="#8f1c13",
        button_cancel_background_fill_hover_dark="#8f1c13",
        button_cancel_text_color="#ffffff",
        button_cancel_text_color_dark="#ffffff",
        block_label_text_color="#3b4653",
        block_label_text_color_dark="#c3ccd6",
        block_title_text_color="#3b4653",
        block_title_text_color_dark="#c3ccd6",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#0f766e",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_selected="#e3f2f0",
        checkbox_label_background_fill_selected_dark="#15332f",
        checkbox_label_border_width="1px",
        checkbox_label_text_color_selected="#0b4f49",
        checkbox_label_text_color_selected_dark="#a7e8df",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
    )
