"""The local page as a person uses it, in a browser."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import catheters
from catheters.viz.lines import DEVICE_TYPE_COLOURS
from tests.browser import PHONE, SCREEN, Browser
from tests.inference.server.uploads import WITH_LINES

HOSTILE_NAME = "=1+1<img src=x onerror=alert(1)>.dcm"


UNTIL = "const until = async (is) => { while (!is()) await new Promise((go) => setTimeout(go, 50)); };"


def drop(browser: Browser, files: dict[str, bytes], num_before: int = 0) -> None:
    """Drop files, by their names, on the page, and wait until it is done with them."""
    encoded = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
    browser.evaluate(
        f"""(async () => {{
        {UNTIL}
        const transfer = new DataTransfer();
        for (const [name, data] of {json.dumps(encoded)})
          transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
        document.dispatchEvent(new DragEvent("drop", {{dataTransfer: transfer}}));
        await until(() => byId("status").textContent === "{num_before + len(files)} done");
        }})()"""
    )


@pytest.fixture
def used(browser: Browser, port: int, xray: Path) -> Browser:
    """The page in a browser, after an X-ray and a broken file were dropped on it."""
    browser.show(SCREEN)
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, {HOSTILE_NAME: xray.read_bytes(), "bad.png": b"nonsense, of some length"})
    return browser


def test_in_a_browser(used: Browser, xray: Path) -> None:
    """It is used as a person would: who points at a label, presses it, and goes back."""
    found = used.evaluate(
        f"""(async () => {{
        {UNTIL}
        const image = document.querySelector("article img"), before = image.src;
        const row = document.querySelector("article tbody tr"), button = row.querySelector("button");
        row.dispatchEvent(new Event("mouseenter"));
        await until(() => image.src !== before);
        await image.decode();
        button.click();  // as a keyboard and a touch screen do
        const pressed = [button.getAttribute("aria-pressed")];
        row.dispatchEvent(new Event("mouseleave"));
        await until(() => image.src !== before && row.className.includes("shown"));
        await until(() => document.querySelector(".figure p").textContent.includes("Grad-CAM"));
        button.dispatchEvent(new KeyboardEvent("keydown", {{key: "Escape", bubbles: true}}));
        pressed.push(button.getAttribute("aria-pressed"), String(image.src === before));
        const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
        return {{
          pressed, names: texts("article h2"), error: document.querySelector(".error").textContent,
          rows: document.querySelectorAll("article tbody tr").length, sentences: texts(".sentences li"),
          headings: texts("article thead th"), predicted: texts("article tbody td:last-child"),
          size: [image.naturalWidth, image.naturalHeight], csv: csv(), images: document.images.length}};
        }})()"""
    )
    console = [line for line in used.console if "status of 422" not in line]
    assert console == []
    assert sorted(found["names"]) == sorted([HOSTILE_NAME, "bad.png"])
    assert found["error"].startswith("is no image file of a known format")
    assert (found["rows"], found["images"]) == (11, 1)
    assert found["headings"] == ["Label", "Probability", "Threshold", "Predicted"]
    assert {text.removesuffix(", deferred") for text in found["predicted"]} <= {"positive", "negative"}
    assert found["sentences"][0].startswith("ETT: ")
    assert found["size"] == list(cv2.imread(str(xray)).shape[1::-1])
    assert found["pressed"] == ["true", "false", "true"]
    lines = found["csv"].splitlines()
    assert lines[0].startswith('"file","ETT - Abnormal"')
    assert lines[1].startswith('"\'=1+1<img src=x onerror=alert(1)>.dcm",0.')  # no formula
    assert lines[2].startswith('"bad.png",,') and "is no image" in lines[2]


def test_it_can_be_read_on_a_screen_a_phone_and_paper(used: Browser) -> None:
    used.evaluate("document.querySelector('article tbody tr').classList.add('shown', 'positive')")
    used.assert_readable()
    assert used.cut_boxes() == []
    for width in (PHONE, 800, 1000):
        used.show(width)
        assert used.cut_boxes() == []


@WITH_LINES
def test_an_xray_without_lines_in_a_browser(browser: Browser, port: int) -> None:
    browser.show(SCREEN)
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, {"black.png": cv2.imencode(".png", np.zeros((64, 64), dtype=np.uint8))[1].tobytes()})
    said = browser.evaluate(
        f"""(async () => {{
        {UNTIL}
        const caption = document.querySelector(".figure p");
        document.querySelector(".key button").click();
        await until(() => caption.textContent.startsWith("Lines and tips: the"));
        return caption.textContent;
        }})()"""
    )
    assert said == "Lines and tips: the model sees none."


@WITH_LINES
def test_lines_in_a_browser(used: Browser, lines_run: Path, xray_with_lines: tuple[Path, set[str]]) -> None:
    """Pressed, they replace the X-ray; a legend says whose colours are whose, and what is not predicted positive."""
    drop(used, {"seen.jpg": xray_with_lines[0].read_bytes()}, num_before=2)
    found = used.evaluate(
        f"""(async () => {{
        {UNTIL}
        const image = document.querySelector("article img"), before = image.src;
        const button = document.querySelector(".key button"), caption = document.querySelector(".figure p");
        button.click();
        await until(() => image.src !== before);
        await image.decode();
        const shown = [button.getAttribute("aria-pressed"), caption.textContent];
        button.click();
        return {{
          shown, isBack: image.src === before, key: document.querySelector(".key").innerText.split("\\n"),
          colours: [...document.querySelectorAll(".swatch")].map((node) => getComputedStyle(node).backgroundColor)}};
        }})()"""
    )
    assert used.console == [line for line in used.console if "status of 422" in line]
    assert found["shown"][0] == "true"
    assert found["shown"][1].startswith("Lines and tips: what the model sees, a ring at each tip.")
    assert found["isBack"]
    sentences = catheters.load(lines_run, device="cpu")(xray_with_lines[0]).sentences
    is_present = {name: f"{name}: present" in sentences[name] for name in DEVICE_TYPE_COLOURS}
    names = [name if is_there else f"{name} (not predicted)" for name, is_there in is_present.items()]
    assert [name.strip() for name in found["key"] if name.strip()] == ["Lines and tips", *names]
    assert found["colours"] == 2 * [f"rgb{colour}" for colour in DEVICE_TYPE_COLOURS.values()]
    used.assert_readable()
    for width in (PHONE, 800, SCREEN):
        used.show(width)
        assert used.cut_boxes() == []
