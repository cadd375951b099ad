"""The rule of ids, by column (`feature_store.contracts.tables.ID_RULE`)."""

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.tables import ID_BYTES

# Unicode: other (control, format, private), separators of lines and paragraphs, blanks at an end.
_UNSEEN = r"[\p{C}\p{Zl}\p{Zp}]|^\p{Z}|\p{Z}$"


def odd_ids(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of an id column, or of lists of ids, that break the rule; "" and null do not."""
    if pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    long = pc.greater(pc.binary_length(values), ID_BYTES)
    odd = pc.or_(long, pc.match_substring_regex(values, _UNSEEN))
    return pc.unique(values.filter(pc.fill_null(odd, False)))
