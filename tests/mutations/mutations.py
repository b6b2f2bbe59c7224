"""The mutations: small faults in the core, each with the tests that must fail when the core has the fault."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTATIONS", "Mutation"]


class Mutation(NamedTuple):
    """A fault that is put into a copy of the core.

    Attributes:
        name: What the core does wrong, in a few words. Each mutation has a name of its own.
        file: The changed file, below ``core/src/mqtt_agent``.
        old: The text that is replaced. It occurs once in the file. One short line makes merging easy.
        new: The text that takes its place.
        tests: The pytest nodes that must fail, below ``tests``. A few fast ones are enough.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STORED_FIRST = "conformance/test_stored_first.py"
ANSWERED_FIRST = "conformance/test_answered_first.py"
UNCONFIRMED = "transport/test_unconfirmed.py"
RESULT_FIRST = f"{STORED_FIRST}::test_a_result_is_acknowledged_when_it_is_stored_and_not_before"
ANSWER_FIRST = f"{ANSWERED_FIRST}::test_a_call_is_acknowledged_when_the_broker_has_its_answer_and_not_before"
LOST_CALLS = "tools/calling/test_unconfirmed.py"
TASK_FIRST = f"{STORED_FIRST}::test_a_task_is_acknowledged_when_it_is_stored_and_not_before"
KILLED = "faults/test_redelivery.py::test_a_{}_is_killed_before_it_is_stored_is_delivered_again_by_the_broker"
DELEGATIONS = "conformance/test_delegations.py"
AGENTS = "conformance/test_agents.py"
QUESTIONS = "conformance/test_questions.py"
CALLS = "conformance/test_calls.py"
NEXT_PROCESS = f"{DELEGATIONS}::test_the_next_process_sends_what_is_open_and_cancels_what_was_to_be_canceled[mosquitto]"
CONNECTION = "transport/test_connection.py"
RECONNECT = "transport/test_reconnect.py"
PUBACKS = "transport/test_acknowledgements.py"
CONNECT = "conformance/test_connect.py"
CONTRACT = "agents/store/test_contract.py"
POSTGRES = "agents/store/test_postgres.py"

MUTATIONS: tuple[Mutation, ...] = (
    # What is acknowledged, and when
    Mutation(
        "a task is acknowledged before it is stored",
        "agents/executing/ledger.py",
        'reached("received.before-commit")',
        "acknowledge()",
        (f"{TASK_FIRST}[mosquitto-tasks/writer/inbox]",),
    ),
    Mutation(
        "a task is acknowledged before it is stored, seen by a kill",
        "agents/executing/ledger.py",
        'reached("received.before-commit")',
        "acknowledge()",
        (KILLED.format("task_whose_executor"),),
    ),
    Mutation(
        "a result is acknowledged before it is stored",
        "agents/requesting/results.py",
        'reached("outcome.before-commit")',
        "message.acknowledge()",
        (f"{RESULT_FIRST}[mosquitto-None-delegate]",),
    ),
    Mutation(
        "a result is acknowledged before it is stored, seen by a kill",
        "agents/requesting/results.py",
        'reached("outcome.before-commit")',
        "message.acknowledge()",
        (KILLED.format("result_whose_requester"),),
    ),
    Mutation(
        "an unreadable result is acknowledged before its task has failed in the store",
        "agents/requesting/results.py",
        'task_id = (message.correlation_data or b"").decode(errors="replace")',
        'message.acknowledge(); task_id = (message.correlation_data or b"").decode(errors="replace")',
        (f"{RESULT_FIRST}[mosquitto-unreadable-delegate]",),
    ),
    Mutation(
        "a call is acknowledged before its answer is sent",
        "tools/serving/answers.py",
        "properties = PublishProperties(correlation_data=messages[-1].correlation_data if messages else None)",
        "properties = PublishProperties(); acknowledge(messages)",
        (f"{ANSWER_FIRST}[mosquitto-a result]",),
    ),
    Mutation(
        "messages are acknowledged on arrival although their handlers do it later",
        "transport/subscriptions.py",
        "if not manual:",
        "if True:",
        (f"{TASK_FIRST}[mosquitto-tasks/writer/inbox]",),
    ),
    Mutation(
        "a held message is acknowledged on arrival",
        "transport/acknowledgements.py",
        "if not self.held:",
        "if True:",
        (f"{TASK_FIRST}[ejabberd-tasks/writer/inbox]",),
    ),
    Mutation(
        "a finished message lets unfinished ones be acknowledged",
        "transport/acknowledgements.py",
        "while pending and pending[0].done:",
        "while pending:",
        (f"{PUBACKS}::test_a_finished_message_waits_for_those_that_arrived_before_it[mosquitto]",),
    ),
    Mutation(
        "work that has not started is acknowledged early",
        "transport/acknowledgements.py",
        "if not entry.started and not entry.done:",
        "if False:",
        (f"{PUBACKS}::test_only_work_that_has_begun_is_acknowledged_early_up_to_the_first_that_has_not[mosquitto]",),
    ),
    Mutation(
        "long work is never acknowledged early",
        "transport/acknowledgements.py",
        "if len(self._pending) > self._max_unacknowledged and self._relief is None:",
        "if False:",
        (f"{PUBACKS}::test_only_work_that_has_begun_is_acknowledged_early_up_to_the_first_that_has_not[mosquitto]",),
    ),
    Mutation(
        "work is acknowledged early although few messages are unacknowledged",
        "transport/acknowledgements.py",
        "len(self._pending) > self._max_unacknowledged and",
        "len(self._pending) >= self._max_unacknowledged and",
        (f"{PUBACKS}::test_as_much_work_as_allowed_stays_unacknowledged[mosquitto]",),
    ),
    # The transport
    Mutation(
        "messages that were lost over a reconnect are sent again in the wrong order",
        "transport/outbox.py",
        "for publication in in_flight:",
        "for publication in reversed(in_flight):",
        (f"{UNCONFIRMED}::test_messages_that_were_lost_with_the_connection_are_sent_again_in_their_order[mosquitto]",),
    ),
    Mutation(
        "a message that must not arrive twice is sent again",
        "transport/outbox.py",
        "if publication.repeatable:",
        "if True:",
        (f"{UNCONFIRMED}::test_a_message_that_must_not_arrive_twice_is_not_sent_again[mosquitto]",),
    ),
    Mutation(
        "one message more is unconfirmed than the broker takes",
        "transport/outbox.py",
        "len(self._in_flight) < ",
        "len(self._in_flight) <= ",
        (f"{UNCONFIRMED}::test_no_more_messages_are_unconfirmed_than_the_broker_takes",),
    ),
    Mutation(
        "a refused publish counts as sent",
        "transport/reasons.py",
        "if reason_code < 0x80:",
        "if reason_code <= 0x87:",
        (f"{CONNECTION}::test_a_forbidden_topic_is_not_authorized",),
    ),
    Mutation(
        "each connect begins with a new session",
        "transport/driver.py",
        "clean_start=self._options.clean_start,",
        "clean_start=True,",
        (f"{CONNECTION}::test_what_was_sent_to_us_while_we_were_away_arrives_after_the_reconnect[mosquitto]",),
    ),
    Mutation(
        "the session ends with the connection",
        "transport/driver.py",
        "properties.SessionExpiryInterval = settings.session_expiry",
        "properties.SessionExpiryInterval = 0",
        (f"{CONNECTION}::test_what_was_sent_to_us_while_we_were_away_arrives_after_the_reconnect[mosquitto]",),
    ),
    Mutation(
        "the Last Will is not delayed",
        "transport/driver.py",
        "properties.WillDelayInterval = delay",
        "properties.WillDelayInterval = 0",
        (f"{CONNECT}::test_a_server_connects_with_a_session_that_lasts_and_a_will_with_a_delay",),
    ),
    Mutation(
        "the Last Will is not retained",
        "transport/driver.py",
        "qos=1, retain=True, properties=properties",
        "qos=1, retain=False, properties=properties",
        (f"{CONNECT}::test_a_server_connects_with_a_session_that_lasts_and_a_will_with_a_delay",),
    ),
    Mutation(
        "the waiting messages are sent before the subscriptions are made",
        "transport/reconnect.py",
        "await self._subscriber.open(link)",
        "self._outbox.open(link, link.limits); await self._subscriber.open(link)",
        (f"{RECONNECT}::test_after_a_reconnect_the_subscriptions_are_made_before_anything_is_published[mosquitto]",),
    ),
    Mutation(
        "a process whose client id was taken connects again",
        "transport/reconnect.py",
        "if isinstance(reason, ConnectionLost) and reason.reason_code == TAKEN_OVER:",
        "if False:",
        (f"{RECONNECT}::test_a_connection_whose_client_id_another_process_has_taken_does_not_connect_again",),
    ),
    Mutation(
        "a link that was lost while it was set up is used",
        "transport/reconnect.py",
        "if self.link is not link:",
        "if False:",
        (
            "odd_brokers/test_lost_links.py"
            "::test_messages_are_sent_over_the_next_link_when_a_link_is_lost_with_the_last_answer[0]",
        ),
    ),
    Mutation(
        "nothing is subscribed to again after a reconnect",
        "transport/subscriber.py",
        "for each in self._subscriptions if not (each.left or each.held or each.waits)",
        "for each in self._subscriptions if False",
        (f"{CONNECTION}::test_a_broker_that_was_killed_and_lost_everything_is_served_again[mosquitto]",),
    ),
    Mutation(
        "retained messages arrive although no snapshot is wanted",
        "transport/subscriber.py",
        "0 if snapshot else 2",
        "0",
        (f"{CONNECTION}::test_a_retained_message_arrives_only_where_a_snapshot_is_wanted",),
    ),
    Mutation(
        "the waits between two attempts do not grow",
        "aio/backoff.py",
        "min(self._doublings + 1, _MAX_DOUBLINGS)",
        "0",
        ("aio/test_backoff.py",),
    ),
    Mutation(
        "the waits between two attempts grow without end",
        "aio/backoff.py",
        "min(self._longest, self._first * 2**self._doublings)",
        "self._first * 2**self._doublings",
        ("aio/test_backoff.py",),
    ),
    Mutation(
        "a successful connect does not shorten the next waits",
        "transport/waits.py",
        "self._after_break.reset()",
        "pass",
        (f"{RECONNECT}::test_after_a_connection_that_lasted_the_first_wait_is_short_again[mosquitto]",),
    ),
    Mutation(
        "after many breaks, a client stays away for longer than its will delay",
        "transport/waits.py",
        "min(_LONGEST_AFTER_BREAK, will_delay / 2) if will_delay else _LONGEST_AFTER_BREAK",
        "30",
        ("transport/test_waits.py",),
    ),
    # The wire
    Mutation(
        "published messages are never retained",
        "transport/packing.py",
        "_FIRST_BYTES[qos << 1 | retain]",
        "_FIRST_BYTES[qos << 1]",
        (f"{CONNECTION}::test_a_retained_message_arrives_only_where_a_snapshot_is_wanted",),
    ),
    Mutation(
        "a length of 128 is encoded in one byte too many",
        "transport/packing.py",
        "if value < 128:",
        "if value < 129:",
        (f"{CONNECTION}::test_messages_of_all_lengths_arrive_whole[mosquitto]",),
    ),
    Mutation(
        "tasks of two requesters with the same content have one digest",
        "wire/tasks.py",
        'content["from"] = task.get("from")',
        "pass",
        ("wire/test_tasks.py::test_the_same_work_for_two_requesters_has_two_digests",),
    ),
    Mutation(
        "a name may begin with a dollar sign",
        "wire/identifiers.py",
        'value[0] != "$"',
        'value[0] != "/"',
        ("wire/test_topics.py",),
    ),
    Mutation(
        "a payload of exactly the limit is refused",
        "wire/messages.py",
        "if len(payload) > max_bytes:",
        "if len(payload) >= max_bytes:",
        ("wire/test_messages.py::test_a_payload_of_exactly_the_limit_is_read",),
    ),
    Mutation(
        "fields that are None are written",
        "wire/messages.py",
        "to_json(message, exclude_none=True",
        "to_json(message, exclude_none=False",
        ("wire/test_messages.py::test_no_field_that_is_none_is_written",),
    ),
    Mutation(
        "the Last Will of this very connection counts as outdated",
        "wire/agents.py",
        "return (self.started, self.epoch) < (other.started, other.epoch)",
        "return (self.started, self.epoch) <= (other.started, other.epoch)",
        ("wire/test_tasks.py::test_statuses_are_ordered_by_process_and_connection",),
    ),
    Mutation(
        "replicas subscribe with a share group of their own",
        "wire/topics.py",
        "$share/mcp-tool-{tool}/",
        "$share/mcp-{tool}/",
        ("wire/test_topics.py",),
    ),
    # Endpoints
    Mutation(
        "retained messages that are still there are forgotten after a reconnect",
        "endpoints/retained.py",
        "if self._seen.get(topic, epoch) < epoch:",
        "if self._seen.get(topic, epoch) <= epoch:",
        ("conformance/test_cards.py::test_cards_that_were_removed_meanwhile_are_forgotten[mosquitto]",),
    ),
    Mutation(
        "one card more is kept than allowed",
        "endpoints/retained.py",
        ">= self._most",
        "> self._most",
        ("conformance/test_cards.py::test_cards_over_the_limit_are_left_out_and_told_once[mosquitto]",),
    ),
    Mutation(
        "a marker counts as returned before it has returned",
        "endpoints/markers.py",
        "await within(returned.wait(), timeout)",
        "pass",
        ("endpoints/test_markers.py::test_a_marker_that_does_not_return_in_time_proves_nothing[mosquitto]",),
    ),
    Mutation(
        "a service goes on after its connection has failed for good",
        "endpoints/running.py",
        "failed.set_result(error)",
        "pass",
        ("tools/serving/test_failures.py::test_two_processes_with_the_same_replica_name_do_not_fight",),
    ),
    # Tool clients
    Mutation(
        "every call counts as repeatable",
        "tools/calling/submitter.py",
        "retry = card is not None and (card.read_only or card.idempotent)",
        "retry = True",
        (
            "conformance/test_guarantees.py::test_calls_acknowledged_early_are_lost_with_their_process[mosquitto]",
            "tools/test_processes.py::test_calls_go_on_at_the_other_replica_when_one_is_killed[mosquitto]",
        ),
    ),
    Mutation(
        "a call that a server has is sent again",
        "tools/calling/recovery.py",
        "if call.held:",
        "if False:",
        ("tools/calling/test_recovery.py",),
    ),
    Mutation(
        "a call is sent again before all servers have answered",
        "tools/calling/recovery.py",
        "return Decision.SEND_AGAIN if call.all_answered else Decision.KEEP",
        "return Decision.SEND_AGAIN",
        ("tools/calling/test_recovery.py",),
    ),
    Mutation(
        "a call of a process that has ended is sent again",
        "tools/calling/recovery.py",
        "if call.server_ended:",
        "if False:",
        ("tools/calling/test_recovery.py",),
    ),
    Mutation(
        "a server that claims a tool's name is not asked for the calls of the tool",
        "tools/calling/lost_servers.py",
        "return {*card.tools, *(card.claims or ())}",
        "return {*card.tools}",
        (
            "conformance/test_following.py::test_a_server_that_claims_the_tools_name_is_asked_before_a_call_is_sent_again[mosquitto]",
        ),
    ),
    Mutation(
        "the response of a server's new process counts no new attempt",
        "tools/calling/pending.py",
        "if (moved or answers in self.restarted) and not self.handle.done:",
        "if moved and not self.handle.done:",
        (
            "tools/calling/test_attempts.py::test_a_response_of_a_new_process_that_has_not_said_yet_that_it_has_the_call"
            "_counts_a_new_attempt",
        ),
    ),
    Mutation(
        "a call whose confirmation was lost is lost because a server answers late",
        "tools/calling/recovery.py",
        "return Decision.ASK_AGAIN if call.may_answer else Decision.FAIL_AS_LOST",
        "return Decision.FAIL_AS_LOST",
        (f"{LOST_CALLS}::test_a_call_is_asked_for_until_a_server_that_is_silent_answers[mosquitto-has it]",),
    ),
    Mutation(
        "a call whose confirmation was lost is not asked for",
        "tools/calling/outgoing.py",
        "pending.unconfirmed = True",
        "pass",
        (f"{LOST_CALLS}::test_a_call_that_must_not_run_twice_runs_once[mosquitto-the call]",),
    ),
    Mutation(
        "servers that do not answer a query count as having answered",
        "tools/calling/queries.py",
        "return holders, bool(servers) and all(answer is not None for answer in answers)",
        "return holders, bool(servers)",
        (f"{LOST_CALLS}::test_a_call_that_a_server_may_have_and_does_not_tell_is_lost_and_not_sent_again[mosquitto]",),
    ),
    Mutation(
        "one call more is under way than allowed",
        "tools/calling/outgoing.py",
        "if len(self._pending) >= self._max_pending:",
        "if len(self._pending) > self._max_pending:",
        ("tools/test_calls.py::test_the_number_of_calls_under_way_is_bounded[mosquitto]",),
    ),
    Mutation(
        "a call never times out",
        "tools/calling/outgoing.py",
        "handle.fail(CallTimeout(",
        "str(CallTimeout(",
        ("tools/test_calls.py::test_a_caller_stops_waiting_after_its_timeout_and_can_attach_again[mosquitto]",),
    ),
    Mutation(
        "a call does not expire at the broker",
        "tools/calling/outgoing.py",
        "message_expiry=expiry,",
        "message_expiry=None,",
        (f"{CALLS}::test_our_calls_hold_the_specified_fields_and_properties[mosquitto]",),
    ),
    Mutation(
        "a canceled call goes on at its server",
        "tools/calling/outgoing.py",
        "self._cancel_at_server(handle, reason)",
        "pass",
        ("tools/test_calls.py::test_cancelling_the_caller_cancels_the_handler[mosquitto]",),
    ),
    Mutation(
        "a call that no server gets waits for its timeout",
        "tools/calling/outgoing.py",
        "if code == NO_MATCHING_SUBSCRIBERS and not self._refuse_again(pending):",
        "if False:",
        ("conformance/test_calls.py::test_a_call_that_nobody_takes_has_not_run",),
    ),
    # Tool servers
    Mutation(
        "a repeat of a running call runs",
        "tools/serving/executor.py",
        "known = self._known.get(key)",
        "known = None",
        (
            f"{ANSWERED_FIRST}::test_a_call_that_arrives_twice_while_it_runs_is_acknowledged_twice_after_its_one_answer[mosquitto]",
        ),
    ),
    Mutation(
        "a repeat of a finished call runs",
        "tools/serving/executor.py",
        "stored = self._replay.get(key)",
        "stored = None",
        (f"{ANSWERED_FIRST}::test_a_repeated_call_gets_its_stored_answer_before_it_is_acknowledged[mosquitto]",),
    ),
    Mutation(
        "an answer is stored under the wrong key",
        "tools/serving/execution.py",
        "return self.call.client, self.call.call_id",
        'return "", self.call.call_id',
        (f"{ANSWERED_FIRST}::test_a_repeated_call_gets_its_stored_answer_before_it_is_acknowledged[mosquitto]",),
    ),
    Mutation(
        "calls of two callers with one id are one call",
        "tools/serving/executor.py",
        "key = (call.client, call.call_id, bound)",
        'key = ("", call.call_id, bound)',
        (f"{ANSWERED_FIRST}::test_calls_of_two_callers_with_one_id_are_two_calls[mosquitto]",),
    ),
    Mutation(
        "a retryable failure is stored",
        "tools/serving/runner.py",
        "if error is None or not error.retryable:",
        "if True:",
        (f"{CALLS}::test_a_retryable_failure_is_run_again[mosquitto]",),
    ),
    Mutation(
        "one handler more runs than allowed",
        "tools/serving/executor.py",
        "must_wait = self._running >= self._max_concurrency",
        "must_wait = self._running > self._max_concurrency",
        ("tools/test_calls.py::test_no_more_handlers_run_at_once_than_allowed[mosquitto]",),
    ),
    Mutation(
        "a call that has expired keeps its place in the queue",
        "tools/serving/executor.py",
        "execution.expiry = asyncio.get_running_loop().call_later(seconds, self._drop_expired, execution)",
        "pass",
        (
            "tools/serving/test_threads.py::test_a_call_that_expires_while_no_place_is_free_is_dropped_at_once[mosquitto]",
        ),
    ),
    Mutation(
        "a cancel does not stop the handler",
        "tools/serving/executor.py",
        "self._stop(execution, CallFault(code=CANCELED, message=message, data=data, retryable=True))",
        "pass",
        (f"{CALLS}::test_a_cancel_stops_one_call_at_whichever_replica_has_it[mosquitto]",),
    ),
    Mutation(
        "a retained call runs",
        "tools/serving/intake.py",
        'if message.retain:\n            self._faults.refuse(message, "a retained call',
        'if False:\n            self._faults.refuse(message, "a retained call',
        (f"{CONNECT}::test_a_call_that_arrives_as_a_retained_message_is_acknowledged_and_not_run",),
    ),
    Mutation(
        "a caller may have its answer sent to any topic",
        "tools/serving/intake.py",
        "if error is None and sender is None and asked_for not in (None, reply_to):",
        "if False:",
        ("hostile/test_bad_calls.py",),
    ),
    Mutation(
        "stored answers never expire",
        "tools/serving/replay.py",
        "entry[0] <= time.monotonic()",
        "False",
        ("tools/serving/test_replay.py",),
    ),
    Mutation(
        "one answer more is stored than allowed",
        "tools/serving/replay.py",
        "len(self._entries) <= self._max_entries",
        "len(self._entries) <= self._max_entries + 1",
        ("tools/serving/test_replay.py",),
    ),
    Mutation(
        "the size of forgotten answers counts for ever",
        "tools/serving/replay.py",
        "self._bytes -= _size(key, entry[1], entry[2])",
        "pass",
        ("tools/serving/test_replay.py",),
    ),
    # Requesters
    Mutation(
        "a task is sent before it is stored",
        "agents/requesting/delegations.py",
        'reached("delegated.before-commit")',
        "self._sender.send(record)",
        (f"{STORED_FIRST}::test_a_task_is_sent_when_its_requester_has_stored_it_and_not_before[mosquitto]",),
    ),
    Mutation(
        "an answer is sent before it is stored",
        "agents/requesting/inputs.py",
        "            await self._store(handle)\n        question, handle.question",
        "            self._tasks.background.start(self._store(handle))\n        question, handle.question",
        (f"{STORED_FIRST}::test_an_answer_is_sent_when_its_requester_has_stored_it_and_not_before[mosquitto]",),
    ),
    Mutation(
        "the results of requests are acknowledged on arrival",
        "agents/requesting/delegations.py",
        "self._listen(record.task_id, topic, self.results.on_result, manual=True)",
        "self._listen(record.task_id, topic, self.results.on_result)",
        (f"{RESULT_FIRST}[mosquitto-None-request]",),
    ),
    Mutation(
        "a result from another agent ends the task",
        "agents/requesting/results.py",
        "if sender not in (None, given.peer):",
        "if False:",
        (f"{DELEGATIONS}::test_what_is_not_the_result_is_left_out_and_the_first_result_counts[mosquitto]",),
    ),
    Mutation(
        "another task with a known id is sent",
        "agents/requesting/delegations.py",
        "record.digest in (stored.digest, digest_of(stored.task))",
        "True",
        ("agents/test_tasks.py::test_the_same_id_with_other_content_is_rejected[mosquitto]",),
    ),
    Mutation(
        "open tasks are not sent again after a reconnect",
        "agents/requesting/resender.py",
        'self._scope.outlines("delegated", OPEN):',
        'self._scope.outlines("delegated", ()):',
        (f"{DELEGATIONS}::test_after_a_reconnect_what_is_open_is_sent_again[mosquitto]",),
    ),
    Mutation(
        "a task is sent again at ever the same interval",
        "agents/requesting/reminders.py",
        "min(_MAX, entry.interval * 2)",
        "entry.interval",
        ("agents/requesting/test_reminders.py",),
    ),
    Mutation(
        "the intervals of a task grow without end",
        "agents/requesting/reminders.py",
        "min(_MAX, entry.interval * 2)",
        "entry.interval * 2",
        ("agents/requesting/test_reminders.py",),
    ),
    Mutation(
        "a message about a task does not put its reminder off",
        "agents/requesting/reminders.py",
        "entry.due = asyncio.get_running_loop().time() + entry.interval",
        "pass",
        (f"{DELEGATIONS}::test_events_put_asking_again_off[mosquitto]",),
    ),
    Mutation(
        "a task that was canceled is sent again",
        "agents/requesting/resender.py",
        "if record.cancel_requested:",
        "if False:",
        (NEXT_PROCESS,),
    ),
    Mutation(
        "a task does not expire at the broker",
        "agents/requesting/sender.py",
        "message_expiry=expiry\n",
        "message_expiry=None\n",
        (f"{DELEGATIONS}::test_a_task_is_as_in_the_document[mosquitto]",),
    ),
    Mutation(
        "a task that its executor does not know ends",
        "agents/requesting/results.py",
        "unknown = unknown_tasks(result)",
        "unknown = unknown_tasks(result)[:0]",
        (f"{QUESTIONS}::test_a_task_that_its_executor_does_not_know_is_sent_as_a_whole_and_does_not_end[mosquitto]",),
    ),
    Mutation(
        "a question on a plain topic is about sender-bound tasks too",
        "agents/executing/ledger.py",
        "if record is not None and self._replies.may_touch(record, reply_to):",
        "if record is not None:",
        (f"{QUESTIONS}::test_a_stranger_learns_nothing_by_asking[mosquitto]",),
    ),
    Mutation(
        "the wish to cancel is not stored",
        "agents/requesting/delegations.py",
        "changed = await self._tasks.change(task_id, cancel_requested=True)",
        "changed = None",
        (NEXT_PROCESS,),
    ),
    # Executors
    Mutation(
        "a result is sent before it is stored",
        "agents/executing/completion.py",
        'reached("finished.before-commit")',
        "self._replies.publish(topics[-1], __import__('json').dumps(result).encode(), record.task_id)",
        (f"{STORED_FIRST}::test_a_result_is_sent_when_it_is_stored_and_not_before[mosquitto]",),
    ),
    Mutation(
        "a result is settled before the broker has confirmed it",
        "agents/executing/replies.py",
        'await reached_when_sent("result.published")',
        "await self._scope.store.change(record.key, (record.state,), settled=True)",
        (f"{STORED_FIRST}::test_a_result_is_settled_when_the_broker_has_confirmed_it_and_not_before[mosquitto]",),
    ),
    Mutation(
        "a result that nobody got is settled",
        "agents/executing/replies.py",
        "elif any(code != NO_MATCHING_SUBSCRIBERS for code in codes) and not record.settled:",
        "elif not record.settled:",
        (f"{AGENTS}::test_a_result_that_nobody_got_is_sent_again_by_the_next_process[mosquitto]",),
    ),
    Mutation(
        "an old attempt may change the record",
        "agents/executing/attempt.py",
        "ACTIVE, expected_attempt=self.number",
        "ACTIVE, expected_attempt=None",
        ("agents/executing/test_attempts.py::test_an_old_attempt_changes_nothing[mosquitto-saves]",),
    ),
    Mutation(
        "an old attempt may store its result",
        "agents/executing/completion.py",
        "expected_attempt=attempt",
        "expected_attempt=None and attempt",
        ("agents/executing/test_attempts.py::test_an_old_attempt_changes_nothing[mosquitto-returns]",),
    ),
    Mutation(
        "a new attempt uses event numbers again",
        "agents/executing/attempt.py",
        "self.seq: int = record.seq - RESERVED_SEQS",
        "self.seq: int = 0",
        (f"{AGENTS}::test_after_a_restart_the_attempt_is_higher_and_the_answer_is_known[mosquitto]",),
    ),
    Mutation(
        "one handler more runs than there are slots",
        "agents/executing/slots.py",
        "self._free = count",
        "self._free = count + 1",
        (f"{AGENTS}::test_a_task_for_no_handler_or_over_the_limit_is_rejected[mosquitto]",),
    ),
    Mutation(
        "one sender may use the whole room",
        "endpoints/room.py",
        "max(size, self._used[sender, proven]) > left",
        "size > left",
        ("endpoints/test_room.py::test_one_sender_gets_half_and_each_later_one_a_part_of_what_is_left",),
    ),
    Mutation(
        "any number of calls may wait",
        "tools/serving/executor.py",
        "if must_wait and not self._room.hold(execution):",
        "if must_wait and not self._room.hold(execution) and False:",
        (
            "hostile/test_shares.py::test_a_caller_whose_large_calls_wait_leaves_room_for_the_calls_of_others[mosquitto]",
        ),
    ),
    Mutation(
        "one requester may use the room for all waiting tasks",
        "agents/executing/shares.py",
        "if self._waiting[requester] > left:",
        "if False:",
        (
            "hostile/test_shares.py::test_a_requester_with_many_waiting_tasks_leaves_room_for_those_of_others[mosquitto]",
        ),
    ),
    Mutation(
        "any number of handlers may wait for answers",
        "agents/executing/questions.py",
        "            self._seat.take()",
        "            pass",
        (
            "hostile/test_shares.py::test_a_requester_with_many_open_questions_leaves_room_for_those_of_others[mosquitto]",
        ),
    ),
    Mutation(
        "one task more waits than allowed",
        "agents/executing/shares.py",
        "left = self._most - waiting",
        "left = self._most - waiting + 1",
        (f"{AGENTS}::test_a_task_for_no_handler_or_over_the_limit_is_rejected[mosquitto]",),
    ),
    Mutation(
        "a repeat of a task runs again",
        "agents/executing/ledger.py",
        "if not added:",
        "if False:",
        ("agents/test_tasks.py::test_the_same_id_with_the_same_content_runs_once[mosquitto]",),
    ),
    Mutation(
        "another task with a known id gets the result of the first",
        "agents/executing/ledger.py",
        "or canceled_early:",
        "or True:",
        (f"{AGENTS}::test_the_same_id_with_other_content_is_a_conflict_and_the_task_goes_on[mosquitto]",),
    ),
    Mutation(
        "a canceled handler goes on",
        "agents/executing/run.py",
        "self.work.cancel()",
        "pass",
        ("agents/test_tasks.py::test_cancelling_stops_the_handler_and_the_result_says_so[mosquitto]",),
    ),
    Mutation(
        "a handler goes on when its task has expired",
        "agents/executing/run.py",
        "timer = None if left is None else asyncio.get_running_loop().call_later(left, run.expire)",
        "timer = None",
        ("agents/test_tasks.py::test_a_task_that_is_not_done_in_time_expires[mosquitto]",),
    ),
    Mutation(
        "tasks of an earlier process are not run again",
        "agents/executing/executor.py",
        "again = await self._scope.store.reopen(self._scope.owner)",
        "again = 0",
        (f"{AGENTS}::test_after_a_restart_the_attempt_is_higher_and_the_answer_is_known[mosquitto]",),
    ),
    Mutation(
        "anybody may cancel a task that was given on a sender-bound topic",
        "agents/executing/inbox.py",
        "if record is not None and not self._replies.may_touch(record, reply_to):",
        "if False:",
        ("conformance/test_bound_tasks.py",),
    ),
    Mutation(
        "a retained task runs",
        "agents/executing/inbox.py",
        'if message.retain:\n            self._faults.refuse(message, "a retained task',
        'if False:\n            self._faults.refuse(message, "a retained task',
        (f"{CONNECT}::test_a_task_that_arrives_as_a_retained_message_is_acknowledged_and_not_run",),
    ),
    # Agents
    Mutation(
        "the status of an agent is not retained",
        "agents/presence.py",
        "self._connection.publish(self._status_topic, payload, retain=True)",
        "self._connection.publish(self._status_topic, payload)",
        (f"{AGENTS}::test_card_and_status_are_there_for_who_comes_later[mosquitto]",),
    ),
    Mutation(
        "a late Last Will makes a peer offline",
        "agents/peers.py",
        'if before is not None and status.status == "offline" and status.speaks_before(before):',
        "if False:",
        (f"{DELEGATIONS}::test_a_late_last_will_of_an_earlier_connection_is_ignored[mosquitto]",),
    ),
    Mutation(
        "the tasks of all agents have one owner",
        "agents/scope.py",
        'return f"{self.topics.namespace}/{self.agent_id}"',
        "return self.topics.namespace",
        ("agents/test_shared_store.py",),
    ),
    # The stores
    Mutation(
        "a terminal state may change",
        "agents/store/rows.py",
        "if row.state in _OVER and not _CHANGEABLE_AT_END.issuperset(columns):",
        "if False:",
        (f"{CONTRACT}::TestTheEnd",),
    ),
    Mutation(
        "a change does not compare the attempt",
        "agents/store/rows.py",
        "if row.state not in expected or expected_attempt not in (None, row.attempt):",
        "if row.state not in expected:",
        (f"{CONTRACT}::TestChanging",),
    ),
    Mutation(
        "the newest task is claimed first",
        "agents/store/sqlite.py",
        "ORDER BY position LIMIT 1",
        "ORDER BY position DESC LIMIT 1",
        (f"{CONTRACT}::TestClaiming",),
    ),
    Mutation(
        "delegated tasks are set back too",
        "agents/store/sqlite.py",
        "WHERE agent = ? AND role = 'received' AND state IN (",
        "WHERE agent = ? AND role != '' AND state IN (",
        (f"{CONTRACT}::TestClaiming",),
    ),
    Mutation(
        "a change returns before it is committed",
        "agents/store/writer.py",
        'connection.execute("COMMIT")',
        '_deliver(outcomes); threading.Event().wait(0.2); connection.execute("COMMIT")',
        ("agents/store/test_processes.py::test_what_returned_before_a_kill_is_there_and_nothing_is_half_done",),
    ),
    Mutation(
        "a commit does not wait for the disk",
        "agents/store/database.py",
        "{'FULL' if synchronous == 'full' else 'NORMAL'}",
        "NORMAL",
        ("agents/store/test_sqlite.py::TestDurability",),
    ),
    Mutation(
        "a claim in PostgreSQL gives up when another session has the only task",
        "agents/store/postgres.py",
        "if not waiting:",
        "if True:",
        (f"{POSTGRES}::TestOtherSessions",),
    ),
    Mutation(
        "a claim does not search for an older task that was set back",
        "agents/store/postgres.py",
        "self.changes += 1",
        "return",
        (f"{CONTRACT}::TestClaiming", f"{POSTGRES}::TestOtherSessions"),
    ),
    Mutation(
        "a batch that may have been committed runs again",
        "agents/store/postgres_engine.py",
        "return self._connection is not None and not isinstance(error, StoreError)",
        "return True",
        (f"{POSTGRES}::TestAway",),
    ),
    Mutation(
        "statements about one record that are written together lose their order",
        "agents/store/postgres_sets.py",
        "if part.key in touched:",
        "if False:",
        ("agents/store/test_postgres_sets.py",),
    ),
    Mutation(
        "a suspicion counts at once",
        "agents/store/lease.py",
        "if since <= now - _CONTRADICTED_WITHIN",
        "if True",
        ("agents/store/test_members.py",),
    ),
    Mutation(
        "statements are prepared behind a pooler",
        "agents/store/postgres_engine.py",
        "prepare_threshold=None",
        "prepare_threshold=1",
        (f"{POSTGRES}::TestOtherSessions",),
    ),
    Mutation(
        "every process migrates the tables",
        "agents/store/postgres_schema.py",
        "SELECT pg_advisory_xact_lock(hashtextextended('mqtt-agent ' || %s, 0))",
        "SELECT %s",
        (f"{POSTGRES}::TestTables",),
    ),
    Mutation(
        "the memory store finds the last record again",
        "agents/store/memory.py",
        "bisect_right(positions, after)",
        "bisect_left(positions, after)",
        (f"{CONTRACT}::TestFinding",),
    ),
    Mutation(
        "work on a failing store is tried again at ever longer intervals",
        "agents/store/retrying.py",
        "wait = min(_RETRY_MAX, wait * 2)",
        "wait = wait * 2",
        ("agents/store/test_retrying.py",),
    ),
)
