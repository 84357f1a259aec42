"""Questions in threads that nobody waits for."""

import asyncio
import threading

import pytest

from stanch.agent.host.slow_questions import SlowQuestions


async def test_an_answer_and_an_error_come_back():
    """What the question raises is raised where it was asked."""
    questions = SlowQuestions[int]("test")
    assert await questions.ask("key", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await questions.ask("key", lambda: 1 // 0)


async def test_a_question_that_hangs_is_asked_once():
    """An outage costs one thread for each question, however often it is asked."""
    answer, asked = threading.Event(), []

    def hang() -> int:
        asked.append(1)
        answer.wait(20)
        return 7

    questions = SlowQuestions[int]("test")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await questions.ask("key", hang)
    async with asyncio.TaskGroup() as group:
        last = group.create_task(questions.ask("key", hang))
        answer.set()
    assert (last.result(), asked) == (7, [1])
