"""From a reading thread to the event loop: nothing is lost, order is kept, and both bounds hold."""

from __future__ import annotations

import asyncio
import threading
import time

from s1batch.handover import ByteBudget, Handover, Room


def in_thread(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


async def test_hands_over_every_item_in_order_and_then_says_that_it_is_the_end():
    queue: Handover[int] = Handover(asyncio.get_running_loop(), room=7)

    def put_all():
        for number in range(1000):
            assert queue.put(number)
        queue.end()

    thread = in_thread(put_all)
    taken: list[int] = []
    while items := await queue.take():
        assert len(items) <= 7
        taken += items
    thread.join()
    assert taken == list(range(1000))


async def test_a_thread_that_waits_for_room_is_let_go_when_nobody_takes_any_more():
    queue: Handover[int] = Handover(asyncio.get_running_loop(), room=1)
    assert queue.put(0)
    accepted: list[bool] = []
    thread = in_thread(lambda: accepted.append(queue.put(1)))
    await asyncio.sleep(0.05)
    assert queue.abandon() == [0]
    thread.join()
    assert accepted == [False]


def test_bytes_held_stay_within_the_budget_except_for_one_item_that_is_larger():
    budget = ByteBudget(10)
    never = threading.Event()
    assert budget.take(25, never)
    order: list[str] = []

    def take_small():
        budget.take(1, never)
        order.append("taken")

    thread = in_thread(take_small)
    time.sleep(0.05)
    order.append("given back")
    budget.give_back(25)
    thread.join()
    assert order == ["given back", "taken"]


def test_who_waits_for_memory_is_let_go_when_abandoned():
    budget = ByteBudget(10)
    abandoned = threading.Event()
    assert budget.take(10, abandoned)
    outcome: list[bool] = []
    thread = in_thread(lambda: outcome.append(budget.take(1, abandoned)))
    abandoned.set()
    budget.wake()
    thread.join()
    assert outcome == [False]


async def test_a_room_that_shrinks_and_grows_holds_as_many_as_it_is_large():
    room = Room(4)
    for _ in range(4):
        await room.acquire()
    room.resize(2)
    for _ in range(2):
        room.release()
        assert room.locked(), "there were too many still"
    room.release()
    await room.acquire()
    assert room.locked()
    room.resize(3)
    await room.acquire()
    assert room.locked()
