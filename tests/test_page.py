"""The page in a real headless Chromium: upload, click, ranking; every mistake is a sentence, and the server goes on."""

import importlib.util
import re
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ps_nb.core import read_json, write_json
from ps_nb.search import photographs
from ps_nb.search.page import SearchDesk, serve_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"),
                                  reason="Gradio is not installed: pip install 'ps_nb[web]'")
needs_browser = pytest.mark.skipif(not (CHROMIUM and importlib.util.find_spec("playwright")),
                                   reason="no Chromium, or no Playwright to drive it: apt install chromium, pip install "
                                          "playwright")
RED, GREEN, BLUE = (200, 40, 40), (40, 180, 40), (40, 40, 200)


def embed(image, boxes):
    return np.array([image[y1:y2, x1:x2].mean(axis=(0, 1)) - 100 for x1, y1, x2, y2 in np.asarray(boxes, int)]).reshape(-1, 3)


def detect(image):
    "Whatever is not grey."
    blocks = (image.max(axis=2).astype(int) - image.min(axis=2) > 60).astype(np.uint8)
    boxes = cv2.connectedComponentsWithStats(blocks)[2][1:, :4]
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    return boxes, np.full(len(boxes), 0.9), embed(image, boxes)


def street(path, *people):
    image = np.full((240, 400, 3), 128, np.uint8)
    for left, colour in people:
        image[60:220, left : left + 60] = colour
    Image.fromarray(image).save(path)
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Visitor:
    "A window of the browser on the page."

    def __init__(self, browser, port):
        self.page = browser.new_page()
        self.page.goto(f"http://127.0.0.1:{port}", wait_until="domcontentloaded")
        self.page.wait_for_selector("#file input[type=file]", state="attached", timeout=60_000)

    def hears(self, text):
        self.page.locator("#said", has_text=text).wait_for(timeout=60_000)

    def uploads(self, path, text):
        if self.page.locator("#file button[aria-label='Clear'], #file button[aria-label='Remove this file']").count():
            self.page.locator("#file button[aria-label='Clear'], #file button[aria-label='Remove this file']").first.click()
            self.page.wait_for_selector("#file input[type=file]", state="attached", timeout=60_000)
        self.page.set_input_files("#file input[type=file]", str(path))
        self.hears(text)

    def clicks(self, x, y, text):
        picture = self.page.locator("#photo img")
        picture.wait_for(timeout=60_000)
        picture.scroll_into_view_if_needed()
        place = picture.bounding_box()
        self.page.mouse.click(place["x"] + x * place["width"] / 400, place["y"] + y * place["height"] / 240)
        self.hears(text)

    def indexes(self, path, text):
        self.page.fill("#path textarea, #path input", str(path))
        self.page.click("#start")
        self.hears(text)

    def demands(self, share, text):
        "Set the least similarity by a click on its slider, at this share of its length."
        slider = self.page.locator("#least input[type=range]")
        slider.scroll_into_view_if_needed()
        place = slider.bounding_box()
        self.page.mouse.click(place["x"] + 1 + share * (place["width"] - 2), place["y"] + place["height"] / 2)
        self.hears(text)

    def first_scene(self):
        return self.page.locator("#scenes").inner_text()


@needs_gradio
@needs_browser
def test_a_visit(tmp_path, monkeypatch):
    from playwright.sync_api import sync_playwright

    (tmp_path / "photos").mkdir()
    query = street(tmp_path / "query.png", (40, RED), (240, GREEN))
    street(tmp_path / "photos" / "b.png", (160, RED))
    street(tmp_path / "photos" / "c.png", (100, BLUE), (300, GREEN))
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "broken.mp4").write_text("no video")
    desk = SearchDesk(tmp_path / "index", "toy", detect, embed,
                      second=lambda image, box, people: lambda rows: -(people.features[rows] @ [1.0, 0.0, 0.0]))
    port = free_port()
    page = serve_page(desk, port=port, block=False)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            visitor = Visitor(browser, port)
            visitor.uploads(tmp_path / "broken.png", "broken.png is not a readable image")
            visitor.uploads(query, "2 people found")
            visitor.clicks(70, 140, "there is no index in")
            visitor.indexes(tmp_path / "absent", "no such file or folder")
            visitor.indexes(tmp_path / "broken.mp4", "none of the 1 files can be read")
            visitor.indexes(tmp_path / "photos", "2 images were added: 3 people in 2 images")
            visitor.clicks(70, 140, "of 3 people in 2 images")
            assert "1 · 1.00 · photos/b.png" in visitor.first_scene()
            assert "photos/b.png" in visitor.page.locator("#rows").inner_text()
            assert "search.json" in visitor.page.locator("#files").inner_text().replace("\n", "")
            assert "c.png" not in visitor.first_scene()  # green and blue have a cosine below 0 with red
            visitor.demands(0, "3 of 3 people in 2 images")
            assert "c.png" in visitor.first_scene()
            visitor.page.check("#second input")  # which the stand-in holds for the contrary of red
            visitor.page.locator("#scenes", has_text=re.compile(r"3 · -0\.\d\d · photos/b\.png")).wait_for(timeout=60_000)
            visitor.page.uncheck("#second input")
            visitor.page.locator("#scenes", has_text="1 · 1.00 · photos/b.png").wait_for(timeout=60_000)
            visitor.demands(0.75, "1 of 3 people in 2 images")  # a similarity of 0.5
            other = Visitor(browser, port)  # while the first is there
            other.uploads(query, "2 people found")
            other.clicks(270, 140, "of 3 people in 2 images")
            assert "1 · 1.00 · photos/c.png" in other.first_scene() and "1 · 1.00 · photos/b.png" in visitor.first_scene()
            visitor.clicks(5, 5, "Nobody was found there")
            street(tmp_path / "late.png", (20, RED))
            other.indexes(tmp_path / "late.png", "1 images were added: 4 people in 3 images")
            visitor.clicks(70, 140, "of 4 people in 3 images")  # its page is older than the index
            assert "late.png" in visitor.first_scene()
            visitor.page.check("#drawing input")
            visitor.clicks(50, 80, "opposite corner")
            visitor.clicks(50, 80, "no area")
            with monkeypatch.context() as patch:
                patch.setattr(photographs, "LARGEST", 1000)
                visitor.uploads(query, "query.png has more than 1000 pixels: make it smaller")
            write_json(desk.folder / "index.json", read_json(desk.folder / "index.json") | {"model": "another"})
            other.clicks(70, 140, "was made by model another")
            other.uploads(query, "2 people found")  # the server goes on
            browser.close()
    finally:
        page.close()


@needs_gradio
def test_others_need_the_password():
    port = free_port()
    desk = SearchDesk(Path("index"), "toy", detect, embed)
    page = serve_page(desk, host="0.0.0.0", port=port, password="secret", block=False)
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=60)
    finally:
        page.close()
