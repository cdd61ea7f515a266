//! `store_put`, `store_get`, `store_delete`, `store_list` and `store_search`: values that outlive processes and the
//! daemon, in stores of each user's own.
//!
//! Which values there are, and whether there is room for one more, the host knows, since they are on disk. The kernel
//! checks what it is asked, bounds how much waits, and answers when the host has: orders are carried out in the order
//! of the calls, so a program reads what it wrote before.

use syscalls::call::{StoreDelete, StoreGet, StoreList, StorePut, StoreSearch};
use syscalls::limits::{
    NAME_BYTES_MAX, STORE_ORDERS_MAX, STORE_ORDERS_PER_USER_MAX, STORE_QUERY_BYTES_MAX, STORE_RESULTS_MAX,
    STORE_VALUE_BYTES_MAX,
};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::effect::StoreOrder;
use super::super::user::check_part;
use super::named::check_name;
use super::nesting::check_depth;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_store_put(&self, caller: &Caller, args: StorePut) -> Outcome {
        check_names(&args.store, &args.key)?;
        let bytes = args.value.to_string().len();
        if bytes > STORE_VALUE_BYTES_MAX {
            let message = format!(
                "the value has {bytes} bytes as JSON; the limit is {STORE_VALUE_BYTES_MAX}; cut it into several"
            );
            return Err(Fault::new(Errno::E2BIG, message));
        }
        self.order(caller, StoreOrder::Put(args))
    }

    pub(super) fn sys_store_get(&self, caller: &Caller, args: StoreGet) -> Outcome {
        check_names(&args.store, &args.key)?;
        self.order(caller, StoreOrder::Get(args))
    }

    pub(super) fn sys_store_delete(&self, caller: &Caller, args: StoreDelete) -> Outcome {
        check_names(&args.store, &args.key)?;
        self.order(caller, StoreOrder::Delete(args))
    }

    pub(super) fn sys_store_list(&self, caller: &Caller, args: StoreList) -> Outcome {
        check_name("a store", &args.store)?;
        if args.prefix.len() > NAME_BYTES_MAX {
            let message =
                format!("the prefix has {} bytes; keys have at most {NAME_BYTES_MAX}", args.prefix.len());
            return Err(Fault::new(Errno::EINVAL, message));
        }
        self.order(caller, StoreOrder::List(args))
    }

    pub(super) fn sys_store_search(&self, caller: &Caller, args: StoreSearch) -> Outcome {
        check_name("a store", &args.store)?;
        let bytes = args.text.len();
        if bytes > STORE_QUERY_BYTES_MAX {
            let message =
                format!("the text has {bytes} bytes; the limit is {STORE_QUERY_BYTES_MAX}; search for less");
            return Err(Fault::new(Errno::E2BIG, message));
        }
        if !(1..=STORE_RESULTS_MAX).contains(&args.count) {
            let message = format!("count is {}; ask for 1 to {STORE_RESULTS_MAX} results", args.count);
            return Err(Fault::new(Errno::EINVAL, message));
        }
        self.order(caller, StoreOrder::Search(args))
    }

    fn order(&self, caller: &Caller, order: StoreOrder) -> Outcome {
        if self.store_orders.len() >= STORE_ORDERS_MAX {
            let message = format!(
                "{STORE_ORDERS_MAX} calls wait for the store, which is the limit; try again when some are done"
            );
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        let own = self.store_orders.values().filter(|uid| **uid == caller.uid).count();
        check_part(caller.uid, caller.caps, own, STORE_ORDERS_PER_USER_MAX, "calls that wait for the store")?;
        Ok(Next::Store(order))
    }

    /// The host has carried an order out, or kept a snapshot. Its call may have been withdrawn meanwhile. An earlier daemon
    /// may have taken a value that is nested too deep.
    pub(in crate::core) fn stored(&mut self, number: u64, result: Result<Reply, Fault>) {
        self.store_orders.remove(&number);
        self.snapshot_kept(CallNo(number), result.is_ok());
        let result = match result {
            Ok(Reply::Value(Some(value))) => check_depth(&value).map(|()| Reply::Value(Some(value))),
            other => other,
        };
        self.finish(CallNo(number), result);
    }
}

fn check_names(store: &str, key: &str) -> Result<(), Fault> {
    check_name("a store", store)?;
    check_name("a key", key)
}
