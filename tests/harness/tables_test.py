from experiments.harness import tables


def test_columns_are_aligned_on_the_right():
  text = tables.columns(["a", "loss"], [["long", 0.123456], ["x", None]])
  assert text == "   a    loss\nlong  0.1235\n   x       -"


def test_markdown():
  text = tables.markdown(["a", "loss"], [["x", 1.5]])
  assert text == "| a | loss |\n| --- | --- |\n| x | 1.5 |\n"
