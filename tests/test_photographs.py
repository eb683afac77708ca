"Edge cases of folders, photographs and videos."
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ps_nb.core import UserError
from ps_nb.photographs import GalleryImage, find_files, new_images, read_images, read_query, read_upright, video_frames


def noise(seed, height=24, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def write_video(path, frames, codec="MJPG"):
    height, width = frames[0].shape[:2]
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (width, height))
    for frame in frames:
        film.write(np.ascontiguousarray(frame[:, :, ::-1]))
    film.release()
    return path


def steps(count):
    "Frames that say their own number: grey of 5 × number, which compression leaves recognisable."
    return [np.full((64, 64, 3), 5 * number, np.uint8) for number in range(count)]


def test_files_are_found_once_in_natural_order(tmp_path):
    for name in ("b/s10.JPG", "b/s9.jpeg", "a.png", ".hidden.png", ".cache/x.png", "b/._s9.jpeg", "list.txt", "noise.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    names = [name for name, _ in find_files([tmp_path])]
    assert names == [f"{tmp_path.name}/{rest}" for rest in ("a.png", "b/s9.jpeg", "b/s10.JPG")]
    assert all(path.is_absolute() and path.is_file() for _, path in find_files([tmp_path]))


def test_a_folder_may_be_named_from_inside(tmp_path, monkeypatch):
    save(tmp_path / "holiday" / "deep" / "a.png", noise(0))
    monkeypatch.chdir(tmp_path / "holiday" / "deep")
    assert [name for name, _ in find_files(["."])] == ["deep/a.png"]
    assert [name for name, _ in find_files([".."])] == ["holiday/deep/a.png"]


@pytest.mark.parametrize("name, message", [("absent", "no such file or folder"), ("notes.txt", "neither an image nor a video"),
                                           ("empty", "has no image and no video")])
def test_sources_without_pictures_are_named(tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        find_files([tmp_path / name])
    assert name in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_agrees_with_pillow(tmp_path, orientation):
    header = Image.Exif()
    header[0x0112] = orientation
    path = save(tmp_path / "photo.png", noise(1), exif=header)
    assert np.array_equal(read_upright(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_a_nonsense_orientation_is_ignored(tmp_path, orientation):
    header = Image.Exif()
    header[0x0112] = orientation
    assert np.array_equal(read_upright(save(tmp_path / "photo.png", noise(1), exif=header)), noise(1))


@pytest.mark.parametrize("content", [b"", b"hello", None])
@pytest.mark.parametrize("name", ["broken.jpg", "broken.mp4"])
def test_unreadable_files_are_one_line_that_names_them(tmp_path, name, content, capfd):
    if content is None:
        content = save(tmp_path / "whole.jpg", noise(0, 240, 320)).read_bytes()[:300] if name.endswith("jpg") else (
            write_video(tmp_path / "whole.mp4", steps(20), "mp4v").read_bytes()[:-200])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        list(new_images([(name, tmp_path / name)], 1, []))
    assert "\n" not in str(caught.value)


def test_a_broken_video_says_nothing_on_standard_error(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    program = ("from ps_nb.photographs import video_frames\n"
               "try: list(video_frames('text.mp4', bool))\n"
               "except Exception as error: print(error)")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    assert done.stderr == "" and done.stdout.startswith("text.mp4 is not a readable video")


@pytest.mark.parametrize("codec, suffix", [("MJPG", "avi"), ("mp4v", "mp4")])
def test_frames_are_the_ones_their_numbers_say(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"walk.{suffix}", steps(40), codec)
    found = dict(video_frames(path, lambda number: number % 7 == 3))
    assert list(found) == [3, 10, 17, 24, 31, 38]
    assert [round((frame.mean() + 2) / 5) for frame in found.values()] == list(found)  # video darkens greys by 1 to 4
    again = read_query(f"{path}#000024")
    assert np.array_equal(again, found[24])


def test_colours_of_a_video_are_red_green_blue(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 200
    _, frame = next(video_frames(write_video(tmp_path / "red.avi", [red] * 3), lambda number: True))
    assert frame[:, :, 0].mean() > 180 and frame[:, :, 2].mean() < 20


def test_a_video_that_breaks_off_gives_its_frames_and_then_an_error(tmp_path):
    content = write_video(tmp_path / "walk.avi", [noise(seed, 64, 64) for seed in range(40)]).read_bytes()
    (tmp_path / "torn.avi").write_bytes(content[: len(content) // 2])
    frames = video_frames(tmp_path / "torn.avi", lambda number: number == 0)
    next(frames)
    with pytest.raises(UserError, match="torn.avi breaks off after"):
        next(frames)


def test_images_are_read_back_with_each_video_opened_once(tmp_path, monkeypatch):
    path = write_video(tmp_path / "walk.avi", steps(30))
    still = save(tmp_path / "a.png", noise(3))
    found = dict(new_images([("a.png", still), ("walk.avi", path)], 6, []))
    opened, capture = [], cv2.VideoCapture

    def counting_capture(name):
        opened.append(name)
        return capture(name)

    monkeypatch.setattr(cv2, "VideoCapture", counting_capture)
    back = dict(read_images(list(found)[::-1]))
    assert back.keys() == found.keys() and len(found) == 6
    assert all(np.array_equal(back[image], pixels) for image, pixels in found.items())
    assert opened == [path.as_posix()]


def test_content_decides_what_is_new(tmp_path):
    first, copy = save(tmp_path / "x/a.png", noise(0)), save(tmp_path / "y/a.png", noise(0))
    other = save(tmp_path / "z/a.png", noise(1))
    assert len(list(new_images([("x/a.png", first), ("y/a.png", copy)], 1, []))) == 1
    with pytest.raises(UserError, match="another image called a.png"):
        list(new_images([("a.png", first), ("a.png", other)], 1, []))


def test_a_query_that_is_gone_is_named(tmp_path):
    for name in ("absent.png", "absent.mp4#000003"):
        with pytest.raises(UserError, match=name.split("#")[0]):
            read_query(tmp_path / name)
    hash_in_name = save(tmp_path / "photo#12.png", noise(5))
    assert np.array_equal(read_query(hash_in_name), noise(5))
    with pytest.raises(UserError, match="gone.png"):
        list(read_images([GalleryImage("gone.png", str(tmp_path / "gone.png"), -1, "")]))
