"""A sample of every mail: the facts each template is given, in every state it can be in."""

from app import mail

_PAYMENT = {
    "name": "Zofia Żuraw", "number": "INV-2026-000042", "paid": "€\xa01,250.00", "credited": "€\xa01,151.22", "paid_at": "4 Mar 2026, 14:03", "method": "Bank card", "rate": {}, "settled": "", "cleared": False, "rest": "",
    "above": "", "bonus": "", "stays": "", "left": "", "from_balance": False, "covered": False, "what": "", "kept": "", "spare": False, "uncovered": False, "added": True, "for_another": False, "url": "http://localhost/invoices/INV-2026-000042", "attachments": ["i", "r"],
}  # fmt: skip
_RATE = {"pay": "USD", "figure": "0.922815", "into": "EUR", "source": "ECB", "day": "3 Mar 2026", "held": False}
_REFUND = {
    "name": "Zofia Żuraw", "number": "RF-000007", "payout": "€\xa031.50", "amount": "€\xa032.75", "target": "Visa •••• 4242", "document": "INV-2026-000042", "paid_at": "4 Mar 2026",
    "at": "9 Mar 2026, 10:15", "came_back": False, "answer": "", "reason": "", "receipt": "", "own": True, "asked": True, "guest": False, "url": "http://localhost/refunds",
}  # fmt: skip
_GIVEN = {"name": "Zofia Żuraw", "amount": "€\xa020.00", "paid_at": "4 Mar 2026", "owed": ""}
_DISPUTE = {"name": "Zofia Żuraw", "method": "Bank card", "number": "INV-2026-000042", "amount": "€\xa050.10", "taken": "€\xa049.90", "owed": "", "reason": "", "own": True,
    "url": "http://localhost/balance",
}  # fmt: skip
_FAILED = {
    "name": "Zofia Żuraw", "number": "PF-2026-000043", "amount": "€\xa077.10", "method": "SEPA Direct Debit", "reason": "", "for_another": False, "payable": True, "owed": True, "rest": "",
    "url": "http://localhost/invoices/PF-2026-000043/pay",
}  # fmt: skip
_FUNDS = {"name": "Zofia Żuraw", "cleared": False, "credited": "€\xa020.00", "paid_at": "4 Mar 2026, 14:03", "settled": "", "left": "", "by_link": False, "said": ""}
_SHORT = {"name": "Zofia Żuraw", "label": "ds-12", "plan": "VPS 4", "start": "4 March 2026", "price": "€\xa023.80", "missing": "€\xa012.40", "number": "PF-2026-000043"}
_ENDS = {"name": "Zofia Żuraw", "label": "ds-12", "plan": "VPS 4", "until": "4 March 2026", "end": "4 April 2026", "price": "€\xa023.80", "number": "PF-2026-000043"}
_BEHIND = {
    "name": "Zofia Żuraw",
    "services": [{"label": f"vps-{n}", "plan": "VPS 4", "since": f"{n} April 2026", "cost": f"€\xa095.2{n}"} for n in (1, 2)],
    "owed": "€\xa0190.43",
    "missing": "€\xa0188.10",
    "ends": "8 August 2026",
}
_RAISED = {
    "name": "Zofia Żuraw",
    "services": [{"label": f"vps-{n}", "plan": "VPS 4", "before": f"€\xa023.8{n}", "after": f"€\xa035.7{n}"} for n in (1, 2)],
    "on": "4 April 2026",
}
_ENDED = {"name": "Zofia Żuraw", "label": "ds-12", "plan": "VPS 4", "until": "4 March 2026"}
_LOW = {"name": "Zofia Żuraw", "label": "ds-12", "plan": "VPS 4", "on": "4 March 2026", "price": "€\xa023.80", "missing": "€\xa012.40"}
_SAVED = {"name": "Zofia Żuraw", "card": "Visa •••• 4242", "services": "", "last": "31 March 2026"}
_HELD = {"name": "Zofia Żuraw", "number": "PF-2026-000043", "amount": "€\xa077.10", "method": "Bank transfer", "note": "", "target": "PayPal", "url": "http://localhost/payments/x"}
_CURRENCY = {
    "name": "Zofia Żuraw",
    "before": "EUR",
    "after": "PLN",
    "moved": "€\xa010.00",
    "became": "PLN\xa042.60",
    "rate": "1 EUR = 4.26 PLN",
    "at": "4 Mar 2026",
    "spread": "PLN\xa00.40",
}
_TAKEN_BACK = {
    "name": "Zofia Żuraw", "number": "INV-2026-000042", "amount": "€\xa0100.10", "taken": "€\xa099.90", "paid_at": "4 Mar 2026", "owed": "", "service": False, "open_bill": False, "rest": "",
    "own": True, "url": "http://localhost/balance",
}  # fmt: skip
_CARD = {
    "name": "Zofia Żuraw", "what": "vps-7 · VPS 4", "card": "Visa •••• 4242", "number": "PF-2026-000043", "price": "€\xa023.80", "reason": "", "asked": False, "dead": False,
    "url": "http://localhost/pay/x",
}  # fmt: skip
_ACCESS = {"login": "zofia", "link": "http://localhost/verify/x", "email": "neu@example.com"}


def _renewed(count: int, *, first: bool = False) -> dict[str, object]:
    services = [{"label": f"vps-{n}", "plan": "VPS 4", "until": f"{n} April 2026", "price": f"€\xa023.8{n}", "number": f"INV-2026-00010{n}"} for n in range(1, count + 1)]
    return {"name": "Zofia Żuraw", "services": services, "first": first, "total": "€\xa099.00", "bonus": "", "covered": False, "attachments": ["i"] * count}


SAMPLES: dict[str, list[dict[str, object]]] = {
    "payment_confirmed": [
        _PAYMENT,
        _PAYMENT | {"rate": _RATE, "settled": "€\xa03.10", "cleared": True, "above": "€\xa04.20", "kept": "€\xa05.30", "for_another": True},
        _PAYMENT | {"rest": "€\xa06.40", "spare": True, "uncovered": True, "attachments": []},
        _PAYMENT | {"number": "", "added": False, "attachments": []},
        _PAYMENT | {"bonus": "€\xa07.80", "stays": "€\xa08.90", "left": "€\xa09.05", "attachments": ["r"]},
        _PAYMENT | {"from_balance": True, "what": "vps-7 · VPS 4"},
        _PAYMENT | {"from_balance": True, "bonus": "€\xa07.80"},
        _PAYMENT | {"from_balance": True, "covered": True, "bonus": "€\xa07.80"},
    ],
    "funds_received": [_FUNDS, _FUNDS | {"by_link": True, "settled": "€\xa03.10", "left": "€\xa016.90"}, _FUNDS | {"by_link": True, "said": "Gustav"}],
    "refund_step": [
        *[_REFUND | {"state": state} for state in ("requested", "withdrawn", "approved", "sent", "settled")],
        _REFUND | {"state": "settled", "receipt": "RR-2026-000003"},
        _REFUND | {"state": "declined", "answer": "Bitte zuerst kündigen."},
        *[_REFUND | {"state": "failed", "reason": "The card or account it came from cannot take money any more.", "came_back": back} for back in (False, True)],
        *[_REFUND | {"state": state, "own": False, "asked": False, "guest": state == "failed"} for state in ("requested", "declined", "failed")],
    ],
    "given_back": [
        _GIVEN | {"state": "taken", "owed": "€\xa012.00"},
        *[_GIVEN | {"state": state} for state in ("requested", "settled", "won", "failed")],
    ],
    "payment_failed": [
        _FAILED,
        _FAILED | {"owed": False, "rest": "€\xa012.40"},
        _FAILED | {"for_another": True, "payable": False, "owed": False, "reason": "The network never confirmed the payment."},
    ],
    "dispute_step": [
        _DISPUTE | {"state": "opened", "owed": "€\xa012.00", "reason": "the payer does not recognise it"},
        *[_DISPUTE | {"state": state} for state in ("won", "lost", "inquiry", "closed")],
        *[_DISPUTE | {"state": state, "own": False, "taken": ""} for state in ("opened", "won")],
    ],
    "renewal_short": [_SHORT],
    "service_ends": [_ENDS],
    "balance_low": [_LOW],
    "arrears": [_BEHIND],
    "price_raised": [_RAISED],
    "service_ended": [_ENDED],
    "saved_card": [
        *[_SAVED | {"state": state} for state in ("saved", "removed", "expires")],
        *[_SAVED | {"state": state, "services": "ds-12, vps-7"} for state in ("removed", "expires")],
    ],
    "renewed": [
        *[_renewed(count) for count in (1, 2, 5)],
        *[_renewed(count, first=True) for count in (1, 2, 5)],
        _renewed(1) | {"bonus": "€\xa07.80"},
        _renewed(1) | {"bonus": "€\xa023.81", "covered": True},
    ],
    "payment_held": [*[_HELD | {"state": state} for state in ("held", "returned", "back", "dismissed")], _HELD | {"state": "held", "amount": ""}],
    "currency_changed": [_CURRENCY, _CURRENCY | {"moved": "", "spread": ""}],
    "card_declined": [_CARD, _CARD | {"asked": True}, _CARD | {"dead": True, "reason": "This card cannot be charged any more."}],
    "vat_id_unknown": [{"name": "Zofia Żuraw", "vat_id": "FR40303265045", "known_before": known} for known in (False, True)],
    "transfer_returned": [
        _TAKEN_BACK,
        _TAKEN_BACK | {"owed": "€\xa08.10", "service": True},
        _TAKEN_BACK | {"open_bill": True},
        _TAKEN_BACK | {"rest": "€\xa012.40"},
        _TAKEN_BACK | {"own": False, "taken": ""},
    ],
    **{kind: [_ACCESS] for kind in ("verify", "reset", "address_known", "password_changed", "email_changed", "email_change_undone", "billing_verify", "billing_changed")},
}


def compose(kind: str, language: str, sample: dict[str, object]) -> mail.Composed:
    """One sample as it is written to a reader of a language."""
    return mail.compose(kind, language, **sample)
