//! Calls about stores of values.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

args! {
    /// Arguments of `store_put`.
    struct StorePut {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// The value.
        value: serde_json::Value,
    }

    /// Arguments of `store_get`.
    struct StoreGet {
        /// The store.
        store: String,
        /// The key.
        key: String,
    }

    /// Arguments of `store_delete`.
    struct StoreDelete {
        /// The store.
        store: String,
        /// The key.
        key: String,
    }

    /// Arguments of `store_list`.
    struct StoreList {
        /// The store.
        store: String,
        /// Only keys that begin so.
        #[serde(default)]
        prefix: String,
    }

    /// Arguments of `store_search`.
    struct StoreSearch {
        /// The store.
        store: String,
        /// The words to look for.
        text: String,
        /// How many results at most.
        #[serde(default = "ten")]
        count: u32,
    }
}

fn ten() -> u32 {
    10
}
