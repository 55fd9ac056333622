//! What the three groups make of payments. Pure: payments go in, figures come out; what is kept is bounded by the number
//! of accounts and merchants, not of payments.

mod analytics;

pub(super) use analytics::Analytics;

use super::payment::{ACCOUNTS, Payment, account_name};
use super::report::{Paid, Work};
use std::collections::VecDeque;

/// Payments above this are told to their account's owner.
pub(super) const LARGE_CENTS: u64 = 20_000;
/// Notifications that are shown.
const LATEST: usize = 5;
/// Names of foreign payments are cut to this.
const MAX_NAME: usize = 64;

/// `demo.orders`: what each account has paid.
#[derive(Debug)]
pub(super) struct Orders {
    cents: Vec<u64>,
    total: u64,
    seen: u32,
    /// The account that has paid the most.
    most: u32,
}

impl Default for Orders {
    fn default() -> Self {
        Orders { cents: vec![0; ACCOUNTS as usize], total: 0, seen: 0, most: 0 }
    }
}

impl Orders {
    /// False if it is of no account.
    pub(super) fn take(&mut self, payment: &Payment<'_>) -> bool {
        let Some(number) = payment.account_number() else { return false };
        let paid = &mut self.cents[number as usize];
        self.seen += u32::from(*paid == 0 && payment.amount_cents > 0);
        *paid += payment.amount_cents;
        self.total += payment.amount_cents;
        if *paid > self.cents[self.most as usize] {
            self.most = number;
        }
        true
    }

    pub(super) fn figures(&self) -> Work {
        let cents = self.cents[self.most as usize];
        Work::Orders {
            accounts: self.seen,
            total_cents: self.total,
            most: (cents > 0).then(|| Paid { name: account_name(self.most), cents }),
        }
    }
}

/// `demo.notifications`: payments that are large.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    sent: u64,
    latest: VecDeque<Paid>,
}

impl Notifications {
    pub(super) fn take(&mut self, payment: &Payment<'_>) {
        if payment.amount_cents < LARGE_CENTS {
            return;
        }
        self.sent += 1;
        self.latest.truncate(LATEST - 1);
        let name = payment.account.chars().take(MAX_NAME).collect();
        self.latest.push_front(Paid { name, cents: payment.amount_cents });
    }

    pub(super) fn figures(&self) -> Work {
        Work::Notifications {
            above_cents: LARGE_CENTS,
            sent: self.sent,
            latest: self.latest.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(account: &str, amount_cents: u64) -> Payment<'_> {
        Payment { id: "p", account, merchant: "m", amount_cents }
    }

    #[test]
    fn orders_add_up_what_each_account_paid() {
        let mut orders = Orders::default();
        assert_eq!(orders.figures(), Work::Orders { accounts: 0, total_cents: 0, most: None });
        for (account, cents) in [("acc-00007", 100), ("acc-09999", 150), ("acc-00007", 60)] {
            assert!(orders.take(&payment(account, cents)));
        }
        assert!(!orders.take(&payment("acc-10000", 1)), "there is no such account");
        let most = Some(Paid { name: "acc-00007".into(), cents: 160 });
        assert_eq!(orders.figures(), Work::Orders { accounts: 2, total_cents: 310, most });
    }

    #[test]
    fn notifications_pick_the_large_ones_and_keep_the_last() {
        let mut notifications = Notifications::default();
        for cents in 0..10 {
            notifications.take(&payment("acc-00001", LARGE_CENTS - 3 + cents));
        }
        let Work::Notifications { sent, latest, .. } = notifications.figures() else { panic!() };
        assert_eq!(sent, 7);
        let cents: Vec<u64> = latest.iter().map(|paid| paid.cents - LARGE_CENTS).collect();
        assert_eq!(cents, [6, 5, 4, 3, 2]);
    }
}
