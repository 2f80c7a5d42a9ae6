"""Workers and coordinators as the database knows them."""

from distllm.domain.models import Health, Offer, Rates
from distllm.store.fleet import (
    know_worker,
    know_workers,
    knowledge_of,
    known_rates,
    learn,
    note_health,
    note_work,
    register,
    retire,
)
from distllm.store.reads import open_reader
from tests.store.store_kit import NOW, Store


def test_a_coordinators_id_is_never_given_twice(store: Store) -> None:
    first = store.coordinator()
    store.rows("DELETE FROM coordinators")
    assert store.write(lambda tx: register(tx, "here", 2, NOW)) > first


def test_a_coordinator_that_ended_in_order_says_so(store: Store) -> None:
    me = store.coordinator()
    store.write(lambda tx: retire(tx, me, NOW + 9))
    assert store.rows("SELECT ended_at, alive_until FROM coordinators") == [(NOW + 9, NOW + 9)]


def test_one_server_is_one_worker_however_it_is_named(store: Store) -> None:
    first = store.write(lambda tx: know_worker(tx, "http://a:1", "studio", "openai"))
    assert store.write(lambda tx: know_worker(tx, "http://a:1", "attic", "openai")) == first
    assert store.write(lambda tx: know_worker(tx, "http://b:1", "cellar", "openai")) != first
    assert store.rows("SELECT name FROM workers ORDER BY id") == [("attic",), ("cellar",)]


def test_a_fleet_is_known_at_once_and_names_can_be_changed_round(store: Store) -> None:
    fleet = [("http://b:1", "attic", "openai"), ("http://a:1", "studio", "openai"), ("http://b:1", "attic", "openai")]
    attic, studio, again = store.write(lambda tx: know_workers(tx, fleet))
    assert attic == again != studio
    assert store.write(lambda tx: know_workers(tx, fleet[:2])) == [attic, studio]
    changed = [("http://a:1", "attic", "openai"), ("http://b:1", "studio", "ollama"), ("http://c:1", "new", "openai")]
    assert store.write(lambda tx: know_workers(tx, changed))[:2] == [studio, attic]
    assert store.rows("SELECT identity, name, type FROM workers ORDER BY identity") == changed
    store.write(lambda tx: learn(tx, studio, "llama-8b", Rates(120.0, 9.0), NOW))
    known = store.write(lambda tx: knowledge_of(tx, [attic, studio]))
    assert [known[worker].rates for worker in (attic, studio)] == [{}, {"llama-8b": Rates(120.0, 9.0)}]


async def test_a_worker_that_moved_to_another_address_is_listed_once_for_each(store: Store) -> None:
    for identity in ("http://192.168.1.20:1234", "http://192.168.1.21:1234"):
        store.write(lambda tx, identity=identity: know_worker(tx, identity, "studio", "openai"))
    async with open_reader(store.place) as reader:
        assert len(await reader.workers()) == 2


def test_what_a_probe_found_is_kept_and_slots_are_not_forgotten(store: Store) -> None:
    worker = store.worker("studio")
    offers = (Offer("llama-8b", 8192, True), Offer("qwen-4b", None))
    store.write(lambda tx: note_health(tx, worker, Health(True, offers, slots=4), "closed", NOW))
    store.write(lambda tx: note_health(tx, worker, Health(False, error="refused the connection"), "open", NOW + 30))
    assert store.rows("SELECT healthy, slots, error, breaker, last_seen_at FROM workers") == [
        (0, 4, "refused the connection", "open", NOW + 30)
    ]
    models = "SELECT model, context_length, loaded, seen_at FROM worker_models ORDER BY model"
    assert store.rows(models) == [("llama-8b", 8192, 1, NOW), ("qwen-4b", None, None, NOW)]


def test_learnt_rates_outlive_probes(store: Store) -> None:
    worker = store.worker("studio")
    store.write(lambda tx: learn(tx, worker, "llama-8b", Rates(120.0, 9.0), NOW))
    store.write(lambda tx: note_health(tx, worker, Health(True, (Offer("llama-8b", 8192),)), "closed", NOW + 1))
    store.write(lambda tx: learn(tx, worker, "llama-8b", Rates(130.0, 8.0), NOW + 2))
    assert store.write(lambda tx: known_rates(tx, worker)) == {"llama-8b": Rates(130.0, 8.0)}
    assert store.rows("SELECT context_length FROM worker_models") == [(8192,)]


def test_the_seats_that_are_of_use_are_kept_until_others_are_found(store: Store) -> None:
    worker = store.worker("studio")
    assert store.write(lambda tx: knowledge_of(tx, [worker])[worker].seats) is None
    store.write(lambda tx: note_work(tx, worker, 5.0, 3))
    store.write(lambda tx: note_work(tx, worker, 5.0))
    store.write(lambda tx: note_health(tx, worker, Health(True, slots=None), "closed", NOW))
    assert store.write(lambda tx: knowledge_of(tx, [worker])[worker].seats) == 3
    store.write(lambda tx: note_work(tx, worker, 5.0, 2))
    assert store.write(lambda tx: knowledge_of(tx, [worker])[worker].seats) == 2


async def test_what_is_known_of_a_workers_seats_can_be_read(store: Store) -> None:
    worker = store.worker("studio")
    store.write(lambda tx: note_work(tx, worker, 5.0, 3))
    async with open_reader(store.place) as reader:
        assert [(row["slots"], row["seats"]) for row in await reader.workers()] == [(None, 3)]


def test_throughput_is_told_by_the_time_a_worker_was_busy(store: Store) -> None:
    worker = store.worker("studio")
    store.write(lambda tx: note_work(tx, worker, 5.0))
    store.write(lambda tx: note_work(tx, worker, 15.0))
    store.rows("UPDATE workers SET succeeded = 10, completion_tokens = 400, seconds = 30, requests = 20")
    told = "success_rate, avg_seconds, requests_per_second, tokens_per_second"
    assert store.rows(f"SELECT {told} FROM worker_stats") == [(0.5, 3.0, 0.5, 20.0)]


async def test_a_server_of_this_machine_alone_is_known_by_its_address_here(store: Store) -> None:
    address = "http://127.0.0.1:11434"
    worker = store.write(lambda tx: know_worker(tx, address, "ollama", "ollama"))
    assert store.write(lambda tx: know_worker(tx, address, "ollama", "ollama")) == worker
    async with open_reader(store.place) as reader:
        assert [row["identity"] for row in await reader.workers()] == [address]
