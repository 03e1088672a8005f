"""A process of its own that brings the same news over and over, by every way there is, until it is killed or its round is done.

Started by `test_kills.py`: the database's address, the settings' secret, a seed, and how many pieces of news.
"""

import random
import sys
from dataclasses import dataclass
from datetime import timedelta

import config
from app import clock, create_app, db, payments
from app.gateways.sandbox import SIGNATURE_HEADER, sign


@dataclass
class Deliverer:
    """Who carries the news; `secret` is the pretend processor's."""

    secret: str
    rng: random.Random

    def bring(self) -> None:
        """One piece of news of one payment: a webhook, the return page, the reconciling job, or an old webhook again."""
        row = self.rng.choice(db.rows("select public_id, payer_id, gateway_reference as reference from payments order by id"))
        way = self.rng.randrange(4)
        if way == 0:
            payments.process(payments.receive("sandbox", *self._signed(row.reference)))
        elif way == 1 and (payment := payments.find(row.payer_id, row.public_id)):
            payments.refresh(payment)
        elif way == 2:
            with clock.travel(clock.now() + timedelta(minutes=5)):
                payments.reconcile(3)
        elif old := db.rows("select id from webhooks order by id"):
            payments.replay(self.rng.choice(old).id)

    def _signed(self, reference: str) -> tuple[bytes, dict[str, str]]:
        now = int(clock.now().timestamp())
        event = f"{reference}-{self.rng.randrange(3)}"
        body = f'{{"id": "{event}", "type": "payment.paid", "created": {now}, "account": "acct_sandbox", "reference": "{reference}"}}'.encode()
        return body, {SIGNATURE_HEADER: sign(body, self.secret, now)}


def main(database_url: str, secret_key: str, seed: str, news: str) -> None:
    """Bring so much news, each as it comes."""
    app = create_app(config.Settings(database_url=database_url, secret_key=secret_key, base_url="http://localhost", testing=True))
    with app.app_context():
        deliverer = Deliverer(app.extensions["sandbox_processor"].secret, random.Random(seed))
        for _ in range(int(news)):
            deliverer.bring()
            print("brought", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
