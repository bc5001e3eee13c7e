import io

from PIL import Image

from benchmarks.service_load.pictures import SIZE_PX, picture


def test_each_number_has_a_picture_of_its_own_and_always_the_same() -> None:
    pictures = [picture(number) for number in range(-20, 20)]
    assert len(set(pictures)) == 40
    assert picture(7) == pictures[27]
    assert Image.open(io.BytesIO(pictures[0])).size == (SIZE_PX, SIZE_PX)
