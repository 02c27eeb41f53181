"""`fewstep webhooks`: have events sent to a URL, try it out, and send again what did not arrive."""

from typing import Annotated

import typer

from api import render
from api.command import Json, print_json, server
from api.render import console
from service.tables import DeliveryStatus
from service.webhooks import EventType

webhooks = typer.Typer(no_args_is_help=True, help="URLs that a project's events are sent to.")


@webhooks.command("list")
def webhooks_list(as_json: Json = False) -> None:
    """The project's webhooks."""
    with server() as client:
        found = list(client.webhooks())
        print_json(found) if as_json else console.print(render.webhooks_table(found))


@webhooks.command("create")
def webhooks_create(
    url: str,
    events: Annotated[list[EventType] | None, typer.Option("--event", help="Only these; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Register a URL. The secret that checks the signatures is printed now and never again."""
    with server() as client:
        made = client.create_webhook(url, [event.value for event in events or []])
        if as_json:
            print_json(made)
        else:
            console.print(f"{made.id}  {made.url}", highlight=False)
            console.print(f"secret {made.secret} (keep it: it is not shown again)", highlight=False, soft_wrap=True)


@webhooks.command("delete")
def webhooks_delete(webhook_id: str) -> None:
    """Send nothing more to a webhook, not even what was waiting to be tried again."""
    with server() as client:
        client.delete_webhook(webhook_id)
        console.print(f"{webhook_id} is deleted")


@webhooks.command("test")
def webhooks_test(webhook_id: str, as_json: Json = False) -> None:
    """Send a test; exit code 1 when the first try failed."""
    with server() as client:
        with console.status("sending"):
            delivery = client.test_webhook(webhook_id)
        print_json(delivery) if as_json else console.print(render.deliveries_table([delivery]))
    if delivery.status is not DeliveryStatus.DELIVERED:
        raise typer.Exit(1)


@webhooks.command("deliveries")
def webhooks_deliveries(
    webhook_id: str,
    status: Annotated[DeliveryStatus | None, typer.Option(help="Only these; dead ones can be replayed.")] = None,
    limit: Annotated[int, typer.Option(help="So many of the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """What was sent to a webhook, the newest first."""
    with server() as client:
        found = client.deliveries(webhook_id, status, limit)
        print_json(found) if as_json else console.print(render.deliveries_table(found))


@webhooks.command("replay")
def webhooks_replay(webhook_id: str, delivery_id: str, as_json: Json = False) -> None:
    """Send a delivery again, under the same id."""
    with server() as client:
        delivery = client.replay_delivery(webhook_id, delivery_id)
        print_json(delivery) if as_json else console.print(render.deliveries_table([delivery]))
