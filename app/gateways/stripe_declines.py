"""What a customer reads when Stripe says no. Codes are for the operator; a lost or stolen card is nobody's business but its bank's."""

from collections.abc import Mapping

from app.languages import N_

OTHERWISE = N_("The payment was declined without a reason. Ask your bank, or pay another way.")

_SENTENCES = {
    N_("There is not enough money for this payment."): "insufficient_funds",
    N_("The card's limit is used up for now."): "card_velocity_exceeded withdrawal_count_limit_exceeded pin_try_exceeded",
    N_("The card has expired."): "expired_card expired_payment_method",
    N_("A detail of the card was not right: the number, the date or the security code."): (
        "incorrect_number invalid_number incorrect_cvc invalid_cvc invalid_expiry_month invalid_expiry_year incorrect_pin invalid_pin incorrect_zip incorrect_address"
        " incorrect_postal_code postal_code_invalid"
    ),
    N_("The payment was not confirmed with your bank."): (
        "authentication_required authentication_failure authentication_failed payment_intent_authentication_failure mobile_device_authentication_required"
        " payment_intent_action_required approve_with_id online_or_offline_pin_required offline_pin_required setup_intent_authentication_failure"
    ),
    N_("Your bank did not approve the payment and gave no reason. It can tell you more."): (
        "do_not_honor do_not_try_again call_issuer generic_decline card_declined no_action_taken not_permitted restricted_card security_violation service_not_allowed"
        " transaction_not_allowed stop_payment_order revocation_of_authorization revocation_of_all_authorizations pickup_card lost_card stolen_card fraudulent"
        " merchant_blacklist payment_method_restricted refer_to_customer previously_declined_do_not_retry"
    ),
    N_("The card cannot be used for this kind of payment."): "card_not_supported invalid_card_type invalid_account new_account_information_available testmode_decline",
    N_("This way of paying does not take this currency."): "currency_not_supported payment_method_currency_mismatch",
    N_("The amount is not possible by this way of paying."): (
        "invalid_amount invalid_charge_amount amount_too_large amount_too_small charge_exceeds_transaction_limit charge_exceeds_source_limit"
    ),
    N_("Your bank did not answer in time. Try again in a minute."): (
        "issuer_not_available try_again_later processing_error reenter_transaction payment_method_provider_timeout lock_timeout rate_limit card_decline_rate_limit_exceeded"
    ),
    N_("The same payment was sent a moment ago. Look whether it has arrived before you try again."): "duplicate_transaction",
    N_("The payment was cancelled on the way."): "payment_method_customer_decline canceled abandoned requested_by_customer",
    N_("It was not paid in time."): "payment_intent_payment_attempt_expired automatic expired",
    N_("The bank or app behind this way of paying declined it."): (
        "payment_method_provider_decline payment_intent_payment_attempt_failed payment_method_not_available payment_method_unactivated bank_account_declined generic_could_not_process"
    ),
    N_("Your bank could not debit this account: it is closed, blocked, or cannot be debited."): (
        "account_closed bank_account_restricted bank_account_unusable no_account debit_not_authorized payment_method_bank_account_blocked account_invalid"
        " account_number_invalid could_not_process billing_invalid_mandate payment_intent_mandate_invalid"
    ),
}
_RETURNED = {
    N_("The card or account it came from cannot take money any more."): "expired_or_canceled_card lost_or_stolen_card",
    N_("The bank did not take the money back."): "declined",
    N_("We could not send it at the moment."): "insufficient_funds",
    N_("The payment is disputed with its bank, so it cannot go back twice."): "charge_for_pending_refund_disputed",
    N_("It was called off before it was sent."): "merchant_request",
}
"""Why money on its way back did not arrive. Not enough of it lay with the processor, which is our fault and not the customer's."""
UNSAID = N_("The bank gave no reason.")
_BY_CODE: Mapping[str, str] = {code: sentence for sentence, codes in _SENTENCES.items() for code in codes.split()}

_BACK_BY_CODE: Mapping[str, str] = {code: sentence for sentence, codes in _RETURNED.items() for code in codes.split()}


def sentence(*codes: str | None) -> str:
    """What the first known of these codes means, the most exact one first; nothing where there is no code at all."""
    given = [code for code in codes if code]
    return next((_BY_CODE[code] for code in given if code in _BY_CODE), OTHERWISE) if given else ""


def returned(code: str | None) -> str:
    """Why a refund failed, by the code of its failure; nothing for one that has none."""
    return _BACK_BY_CODE.get(code, UNSAID) if code else ""
