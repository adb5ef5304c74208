from experiments.harness import clock as clocks


def test_saving_takes_at_most_its_share_of_the_time(monkeypatch):
  now = 100.0
  monkeypatch.setattr(clocks.time, "monotonic", lambda: now)
  saved = []

  def save(step):
    nonlocal now
    now += 1.0
    saved.append(step)

  clock = clocks.start(90.0, {"wall_seconds": 5.0, "saving_seconds": 2.0})
  assert clock.seconds() == {"wall_seconds": 15.0, "saving_seconds": 2.0}
  for step in range(200):
    now += 1.0
    clock.save_if_due(step == 199, save, step)
  # The first one, then one every 50 seconds, and the last one, forced.
  assert saved == [0, 50, 100, 150, 199]
  clock.save(save, "row")
  assert clock.seconds() == {"wall_seconds": 221.0, "saving_seconds": 8.0}
  assert clocks.start(now, {}).seconds() == dict.fromkeys(clocks.TIMES, 0.0)
