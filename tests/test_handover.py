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
    while await queue.arrive():
        while (item := queue.pop()) is not None:
            taken.append(item)
    thread.join()
    assert taken == list(range(1000))
    assert queue.is_over
    assert queue.pop() is None


async def test_no_more_items_wait_than_there_is_room_for_and_as_many_that_were_taken():
    queue: Handover[int] = Handover(asyncio.get_running_loop(), room=7)
    put: list[int] = []

    def put_all():
        for number in range(100):
            if not queue.put(number):
                return
            put.append(number)

    thread = in_thread(put_all)
    await asyncio.sleep(0.05)
    assert len(put) == 7
    assert queue.pop() == 0
    await asyncio.sleep(0.05)
    assert len(put) == 14
    assert queue.abandon() == list(range(1, 14))
    thread.join()


async def test_who_waits_for_items_learns_of_those_that_another_one_took_and_left():
    queue: Handover[int] = Handover(asyncio.get_running_loop(), room=7)
    waiting = asyncio.create_task(queue.arrive())
    await asyncio.sleep(0)
    put = [queue.put(number) for number in range(3)]
    assert put == [True] * 3
    assert queue.pop() == 0
    async with asyncio.timeout(10):
        assert await waiting


async def test_what_waits_behind_the_last_item_is_not_the_end_before_that_is_taken():
    queue: Handover[int] = Handover(asyncio.get_running_loop(), room=1)
    assert not queue.is_over
    assert queue.put(0)
    queue.end()
    assert not queue.is_over
    assert await queue.arrive()
    assert queue.pop() == 0
    assert queue.is_over
    assert not await queue.arrive()


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
    assert [room.enter() for _ in range(4)] == [None] * 4
    room.resize(2)
    waits = room.enter()
    assert waits is not None
    for _ in range(2):
        room.release()
        assert not waits.done(), "there were too many still"
    room.release()
    assert waits.result()
    grown = room.enter()
    assert grown is not None
    room.resize(3)
    assert grown.result()
    room.resize(5)
    room.resize(4)
    assert room.enter() is None
    assert room.enter() is not None


async def test_places_go_to_those_who_wait_in_their_order_and_past_those_who_gave_up():
    room = Room(1)
    assert room.enter() is None
    first, second, third = room.enter(), room.enter(), room.enter()
    assert first is not None
    assert second is not None
    assert third is not None
    first.set_result(False)
    second.cancel()
    room.release()
    assert third.result()
    room.release()
    assert room.enter() is None
