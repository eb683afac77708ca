"Edge cases of folders, photographs and videos."
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ps_nb.core import UserError
from ps_nb.search.photographs import GalleryImage, find_files, new_images, read_images, read_query, read_upright, video_frames


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
    assert names == [f"{tmp_path.name}/{rest}" for rest in ("a.png", "b/s9.jpeg", "b/s10.JPG", "noise.heic")]
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
    program = ("from ps_nb.search.photographs import video_frames\n"
               "try: list(video_frames('text.mp4', bool))\n"
               "except Exception as error: print(error)")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    assert done.stderr == "" and done.stdout.startswith("text.mp4 is not a readable video")


@pytest.mark.parametrize("codec, suffix", [("MJPG", "avi"), ("mp4v", "mp4")])
def test_frames_are_the_ones_their_numbers_say(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"walk.{suffix}", steps(40), codec)
    found = {number: frame for number, _, frame in video_frames(path, lambda number: number % 7 == 3)}
    assert list(found) == [3, 10, 17, 24, 31, 38]
    assert [round((frame.mean() + 2) / 5) for frame in found.values()] == list(found)  # video darkens greys by 1 to 4
    again = read_query(f"{path}#000024")
    assert np.array_equal(again, found[24])


def test_colours_of_a_video_are_red_green_blue(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 200
    _, _, frame = next(video_frames(write_video(tmp_path / "red.avi", [red] * 3), lambda number: True))
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


# ---------------------------------------------------------------- one decoder


TURNED = {1: lambda image: image, 2: np.fliplr, 3: lambda image: np.rot90(image, 2), 4: np.flipud,
          5: lambda image: image.swapaxes(0, 1), 6: lambda image: np.rot90(image, -1),
          7: lambda image: np.rot90(image, 2).swapaxes(0, 1), 8: np.rot90}


@pytest.mark.parametrize("name, options", [("a.tif", {}), ("a.tiff", {"compression": "tiff_lzw"}), ("a.png", {}),
                                           ("a.webp", {"lossless": True}), ("a.jpg", {"quality": 100, "subsampling": 0})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format(tmp_path, name, options, orientation):
    header = Image.Exif()
    header[0x0112] = orientation
    smooth = np.add.outer(np.arange(24), 3 * np.arange(32))[:, :, None] + np.array([0, 40, 80])
    path = save(tmp_path / name, smooth.astype(np.uint8), exif=header, **options)
    found, expected = read_upright(path).astype(int), TURNED[orientation](smooth)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= (12 if name.endswith("jpg") else 0)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("colours", [1, 3, 4])
def test_deep_colours_are_scaled_by_their_range(tmp_path, suffix, bits, colours):
    eight = noise(4)
    eight[0, 0] = 255
    deep = np.rint(eight * ((2**bits - 1) / 255)).astype(np.uint16)
    stored = np.dstack([deep[:, :, ::-1], np.full(deep.shape[:2], deep.max())]) if colours == 4 else deep[:, :, ::-1]
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), stored[:, :, 2] if colours == 1 else stored)
    expected = np.repeat(eight[:, :, :1], 3, axis=2) if colours == 1 else eight
    assert np.abs(read_upright(tmp_path / f"a.{suffix}").astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_deep_pictures_are_turned_once(tmp_path, suffix, orientation):
    header = Image.Exif()
    header[0x0112] = orientation
    deep = np.random.default_rng(0).integers(0, 4096, (6, 9), dtype=np.uint16)
    deep[0, 0] = 4095
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}", exif=header)
    expected = TURNED[orientation](np.rint(deep * np.float32(255 / 4095)))
    assert np.array_equal(read_upright(tmp_path / f"a.{suffix}")[:, :, 0], expected)


def test_pictures_of_every_mode(tmp_path):
    red = Image.new("RGB", (32, 24), (250, 10, 10))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    red.save(tmp_path / "progressive.jpg", progressive=True, quality=95)
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    red.convert("RGBA").save(tmp_path / "alpha.png")
    for name in ("walk.gif", "walk.webp"):
        red.save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", (32, 24), (0, 0, 250))])
    for path in tmp_path.iterdir():
        found = read_upright(path).astype(int)
        assert found.shape == (24, 32, 3) and np.abs(found - [250, 10, 10]).max() <= 14, path.name
    Image.new("RGBA", (32, 24), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_upright(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize("name, content, advice", [("a.jpg", b"\0\0\0\x18ftypheic" + bytes(99), "convert it to JPEG"),
                                                   ("a.heic", b"\0\0\0\x18ftypmif1" + bytes(99), "convert it to JPEG")])
def test_heic_is_refused_with_advice(tmp_path, name, content, advice):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=advice):
        read_upright(tmp_path / name)
    assert len(find_files([tmp_path])) == 1


def test_fractions_are_refused_in_one_line(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((6, 9), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="unusual range"):
        read_upright(tmp_path / "a.tiff")


def test_a_hundred_megapixels_are_read_without_a_word(tmp_path, recwarn):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert read_upright(tmp_path / "large.png").shape == (10_000, 10_000, 3) and not recwarn.list


def test_an_estimated_count_is_no_broken_tail(tmp_path, monkeypatch):
    path, capture = write_video(tmp_path / "walk.avi", steps(30)), cv2.VideoCapture

    class Estimate:
        "Says that 1000 frames a second were promised for as long as the video lasts, as recordings of browsers do."
        def __init__(self, name):
            self.film = capture(name)

        def __getattr__(self, name):
            return getattr(self.film, name)

        def get(self, key):
            return {cv2.CAP_PROP_FRAME_COUNT: 3000, cv2.CAP_PROP_FPS: 1000}.get(key) or self.film.get(key)

    monkeypatch.setattr(cv2, "VideoCapture", Estimate)
    assert len(list(video_frames(path, lambda number: True))) == 30


def test_links_are_followed_and_loops_are_not(tmp_path):
    save(tmp_path / "elsewhere" / "b.png", noise(0))
    save(tmp_path / "photos" / "a 'quoted\"\nname.png", noise(1))
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "photos" / "pipe.jpg")
    skipped = {}
    images = [image.name for image, _ in new_images(find_files([tmp_path / "photos"]), 1, [], skipped)]
    assert sorted(images) == ["photos/a 'quoted\"\nname.png", "photos/more/b.png"] and list(skipped) == ["photos/lost.jpg"]
