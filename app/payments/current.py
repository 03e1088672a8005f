"""Bills as they may be paid today: one whose VAT changed since it was made out gets a new pro forma before any money is asked for."""

from app import clock, db, invoicing
from app.formats import formats
from app.invoicing import Bill
from app.payments.book import NotPayable


def bring_up_to_date(bill: Bill) -> Bill:
    """The bill as it may be paid today, with a new pro forma where its total changed. Opens a transaction then."""
    if not bill.unpaid or same_today(bill):
        return bill
    with db.transaction():
        invoicing.reissue([bill.id])
        return invoicing.lock(bill.id)


def same_today(bill: Bill) -> bool:
    """Whether a bill made out today would ask for the same."""
    return invoicing.as_of([bill], [clock.today()])[0].total == bill.total


def payable(customer_id: int, number: str) -> Bill:
    """A customer's own unpaid bill that asks for what its page said under this number. Opens a transaction where it has to be made out again.

    Raises NotPayable, also where it asks for another sum by now: that has to be seen first.
    """
    bill = invoicing.find(customer_id, number)
    if bill is None:
        raise NotPayable("There is no such bill.")
    if not bill.unpaid:
        raise NotPayable(f"{bill.number} is {bill.status} already.")
    bill = bring_up_to_date(bill)
    if number in bill.former_names:
        raise NotPayable(replaced(bill))
    return bill


def replaced(bill: Bill) -> str:
    """The sentence for who was about to pay a pro forma that another replaced."""
    asked = formats(bill.locale, bill.timezone).money(bill.total, bill.currency)
    return f"The VAT changed, so {bill.number} for {asked} replaces {bill.replaces}. Check it, then pay."
