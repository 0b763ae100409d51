"""The last page of the demo: every row by status and reason, every device by both ledgers, and a plain verdict."""

from devstack.demo.audit import Account
from devstack.demo.screen import Screen

ORDER = ("SENT", "BOUNCED", "FAILED", "PENDING")


def show(screen: Screen, account: Account, seconds: float) -> None:
    """Print the account and whether it adds up; `seconds` is how long the demo took."""
    total = account.rows.total()
    screen.line("\nNotifications, by what the database says of them")
    for (status, reason), rows in sorted(account.rows.items(), key=lambda item: (ORDER.index(item[0][0]), -item[1])):
        screen.line(f"{rows:10,}  {status:<8} {reason}")
    screen.line(f"{total:10,}  in all")

    screen.line("\nDevices")
    screen.line(f"{account.served:10,}  served, says the database")
    screen.line(f"{account.accepted:10,}  served, says the emulator's own log")
    screen.line(f"{account.lost:10,}  lost")
    screen.line(f"{account.repeats:10,}  repeats")
    screen.line(f"{sum(account.refusals.values()):10,}  tries that the emulator refused")
    for kind, number in sorted(account.refusals.items()):
        screen.line(f"{number:22,}  {kind.replace('_', ' ')}")

    if faults := account.faults():
        screen.line("\nIt does NOT add up:", style="bold red")
        for fault in faults:
            screen.line(f"  - {fault}")
    else:
        screen.line(f"\nOK: all {total:,} notifications are accounted for, in {seconds:.0f} s.", style="bold green")
