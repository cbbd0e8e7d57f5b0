"""Every constant of ours about a hospital's records: reading, checking, imaging, describing. With unit and reason."""

from __future__ import annotations

from typing import Final

# --- import of records (bytes unless said) ----------------------------------------------------
MAX_RESOURCE_BYTES: Final = 4 * 2**20
"""One FHIR resource, one line of NDJSON: above any clinical resource without an inline image."""
MAX_BUNDLE_BYTES: Final = 256 * 2**20
"""One bundle file is held in memory as a whole."""
MAX_IMPORT_FILE_BYTES: Final = 16 * 2**30
"""One export file after decompression; a compressed bomb stops here."""
MAX_CSV_COLUMNS: Final = 2_000
STAGING_MEMORY_MB: Final = 256
"""Of DuckDB while an import runs; what needs more is spilled into the hub's folder. With the interpreter and a page
of resources a process stays under 500 MiB."""
PAGE_RESOURCES: Final = 5_000
"""Resources that a reader hands over at once: some 30 MB in memory, and what a crash makes an import read again."""
SUSPECTS_SHOWN: Final = 200
"""Pairs of patients that may be one person, listed one by one; somebody has to look each of them up."""
REFUSALS_SHOWN: Final = 1_000
"""Refused resources that a report lists one by one; the counts are of all. Nobody reads more, and they are held in
memory until the next import."""

# --- images (bytes unless said) ------------------------------------------------------------------
MAX_INSTANCE_BYTES: Final = 512 * 2**20
"""One DICOM object, before and after inflating: above any MR series as one enhanced object (some 100 MiB)."""
MAX_QIDO_BYTES: Final = 64 * 2**20
"""One page of search results: a study of 10,000 images takes about 10 MiB."""
MAX_IMAGE_SIDE: Final = 4_096
"""Rows or columns; MR has up to 1,024. A header that claims more could make a reader allocate at will."""
MAX_FRAMES: Final = 20_000
MAX_STUDY_IMAGES: Final = 20_000
"""Images of one study; a dynamic study has up to some 3,000."""
MAX_STUDIES: Final = 100_000
"""Studies of one search; a larger archive is read year by year."""
MAX_FOLDER_FILES: Final = 2_000_000
PACS_TIMEOUT_S: Final = 30.0
"""Silence of a PACS after which a call is given up: archives fetch old studies from slow storage."""
PACS_ATTEMPTS: Final = 4
PACS_PAUSE_S: Final = 0.5
"""Before the second attempt; doubled before each further one."""
PACS_GIVE_UP_STUDIES: Final = 3
"""Studies in a row that cannot be fetched: then the PACS is taken to be down and the run ends, to be resumed."""
QIDO_PAGE: Final = 200
DIMSE_QUEUE: Final = 4
"""Images received and not yet stored; a PACS that sends faster waits."""
DCE_MIN_PHASES: Final = 5
"""Repetitions that make a fast gradient echo dynamic: breath-hold studies of the liver have up to four."""
LOCALIZER_MAX_SLICES: Final = 60
SLICE_TOLERANCE: Final = 0.05
"""Part of the slice distance by which a slice may lie off; headers round to a hundredth of a millimetre."""
MASK_TOLERANCE_MM: Final = 0.1
"""How far a mask's grid or contour plane may lie off the image's."""
MAX_CONTOUR_POINTS: Final = 2_000_000
"""Of one structure set; a gland drawn on 30 slices has about 3,000."""
MAX_BIOMARKER_ROWS: Final = 1_000_000

# --- cohort, and data quality over time ------------------------------------------------------------
MAX_SHARED_IDENTIFIER: Final = 5
"""Persons that may have one identifier and still be suspected to be one person; more, and it is a placeholder."""
MIN_SHARED_EVENTS: Final = 2
"""Kinds of event that two ids of one birth date and gender must have alike, in day and value, to be suspected. Among
2,000 men born over 25 years some 220 pairs share a birth date; by chance none of them shares a second event."""
MAX_OVERRIDES: Final = 10_000
"""Decisions by hand for one dataset. A cohort that needs more is not described by its rules: change them."""
DRIFT_FALSE_ALARM: Final = 0.001
"""Chance that an import from an unchanged system raises any alarm: one import in a thousand. Shared out equally among
all tests that are made (Bonferroni), some 100 for ten variables."""
DRIFT_ROWS_FELL: Final = 0.2
"""Part of the patients (or rows) that must be gone before a fall is worth an alarm; withdrawals are far fewer."""
DRIFT_ROWS_ROSE: Final = 1.0
"""A rise by this part: twice as many patients are read twice, or are those of another unit."""
DRIFT_SHARE: Final = 0.05
"""Change of a share (missing, a category, an exclusion) that is worth an alarm; less is seldom worth a phone call."""
DRIFT_SHIFT: Final = 0.1
"""Largest distance between two distributions (Kolmogorov-Smirnov) that is let pass, however many the patients."""
DRIFT_BEYOND: Final = 0.01
"""Part of the values beyond all of the other import's that is worth an alarm."""
DRIFT_NEW_WORD_ROWS: Final = 3
"""Rows that must have an undeclared word before a profile keeps it: rarer, it may be somebody's name."""
DRIFT_WORDS: Final = 16
"""Undeclared words that a profile keeps per variable, the most frequent first."""
PROFILE_BINS: Final = 128
"""Steps of a distribution as kept: a shift is measured to within 1/128."""

# --- checks of resources ------------------------------------------------------------------------
MAX_FINDINGS: Final = 20
"""Of one resource: whoever mends twenty checks it again, and a hostile resource fills no report."""

# --- FHIR servers (seconds unless said) -----------------------------------------------------------
FHIR_PAGE: Final = 500
"""Resources asked for at once (`_count`): about half a megabyte. Servers may give fewer."""
MAX_FHIR_PAGE_ENTRIES: Final = 10_000
"""A server that gives more at once does not honour `_count`; the page would not fit in memory."""
MAX_FHIR_ANSWER_BYTES: Final = 64 * 2**20
"""One answer after decompression: 10,000 resources of 6 kB."""
MAX_FHIR_REFUSAL_BYTES: Final = 64 * 2**10
"""What is read of an answer that says no; its OperationOutcome is some hundred bytes."""
FHIR_CONNECT_S: Final = 10.0
FHIR_SILENCE_S: Final = 60.0
"""Nothing arrives for so long: the connection is given up. A search over millions of rows may think for a while."""
FHIR_REQUEST_S: Final = 300.0
"""One answer, first byte to last. A server that drips is given up here however regularly it drips."""
FHIR_FILE_S: Final = 6 * 3600.0
"""One file of a bulk export: 16 GiB at 1 MB/s take 4.5 hours."""
FHIR_SLOWEST_BYTES_S: Final = 1_000
"""A file that comes slower than this, after FHIR_REQUEST_S, is a connection that drips."""
FHIR_IMPORT_S: Final = 24 * 3600.0
"""One import altogether, waiting for an export included; after it what was read stays and the next one goes on."""
FHIR_ATTEMPTS: Final = 8
"""Per request, once the server has answered: with FHIR_PAUSE_S a restart of a minute is waited out."""
FHIR_FIRST_ATTEMPTS: Final = 3
"""Before the server has answered at all: a wrong address should be said within seconds."""
FHIR_PAUSE_S: Final = 0.5
"""Longest wait before the second attempt; doubled before each further one. The wait itself is drawn from 0 to this
("full jitter"), so that hubs that were cut off together do not come back together."""
FHIR_PAUSE_MAX_S: Final = 30.0
FHIR_RETRY_AFTER_MAX_S: Final = 600.0
"""Retry-After is honoured up to here."""
FHIR_OVERLAP_S: Final = 120
"""Changes are read again from this long before the last import: nodes of one server disagree about the time, and
what was stamped before a search may have become visible after it. MAX_CLOCK_SKEW_S says why two minutes."""
FHIR_WALKS: Final = 5
"""How often a list that changes while it is read is read again, where the server cannot sort."""
FHIR_STALE_PAGES: Final = 20
"""Pages in a row that bring nothing new: the server's `next` links lead nowhere."""
FHIR_ID_BATCH: Final = 50
"""Ids asked for by one search: 64 letters each make 3,300 characters, and some servers stop at 4,000."""
FHIR_GONE_PAGE: Final = 5_000
MAX_FHIR_CHANGES: Final = 2_000_000
"""Keys held in memory while a server's history or list of ids is compared (about 200 MB)."""
MAX_FHIR_REDIRECTS: Final = 3
MAX_EXPORT_FILES: Final = 100_000
EXPORT_POLL_S: Final = 10.0
"""Between two looks at an export whose server does not say Retry-After."""
TOKEN_LIFETIME_S: Final = 300
"""Of an access token whose server does not say (SMART backend services: the recommended time)."""
TOKEN_RENEW_S: Final = 30
"""Before its end a token is replaced, so that it does not end on the way."""
ASSERTION_LIFETIME_S: Final = 240
"""Of our signed client assertion; SMART allows five minutes, and clocks differ."""
MAX_SECRET_BYTES: Final = 16 * 2**10
"""A token, a password or a private key in its file."""
MAX_OPTIONS_BYTES: Final = 64 * 2**10

# --- views --------------------------------------------------------------------------------------
MAX_REPEAT_DEPTH: Final = 200
"""Levels of a view's `repeat`. No form is nested like that; a path that leads back to itself ends here."""
VIEW_BATCH_ROWS: Final = 50_000
"""Rows held in memory before they are written: some 30 MB, and the fixed cost of writing them no longer counts."""
VIEW_STAGING_MEMORY: Final = "200MB"
"""What DuckDB may hold while a view's table is made; the rest is on disk."""

# --- de-identification --------------------------------------------------------------------------
DATE_SHIFT_MIN_DAYS: Final = 60
"""Shorter shifts leave a date in its season, and could turn one date of a patient into another one of his."""
DATE_SHIFT_MAX_DAYS: Final = 1_886
"""Five years above the least: 1,827 equally likely shifts. Always into the past, so that no examination lies in the
future, and never so far that scanners and guidelines are those of another decade."""
TIME_TURN_EARLIER_S: Final = 6 * 3600
TIME_TURN_LATER_S: Final = 2 * 3600
"""Times of day turn by up to six hours back or two on: what happened between 6 and 22 o'clock keeps its order."""
AGE_CAP: Final = 90
"""Years. Everybody of 90 or more is "90": so few live longer that an age names them (HIPAA safe harbor, 164.514)."""
MAX_DICOM_FILE_BYTES: Final = 2 * 2**30
"""One object, held in memory: above a whole-body enhanced CT, below what the 24 GiB of a hub's machine bear twice."""
TEXT_SCORE: Final = 0.8
"""How sure the reader of pixels must be of a word; on phantoms words are read at 0.9 and more, noise below 0.75."""
TEXT_MIN_CHARS: Final = 3
"""Letters and digits of a word in pixels that counts. Marks of orientation (R, L, A, P, FH) are shorter."""
MAX_PIXEL_READING_S: Final = 60
"""For one frame by the residual check's own reader; a frame that takes longer was not read, and that is reported."""
MIN_CLASS_SIZE: Final = 11
"""Records that should be alike in their quasi-identifiers: a highest risk of 0.09, which EMA policy 0070 and Health
Canada's guidance use for data that are shared under conditions. Below it the report suggests generalisations."""

# --- tables: SQL, CSV, workbooks (bytes unless said) -----------------------------------------------
MAX_CELL_CHARS: Final = 10_000
"""One cell; what a mapping reads are numbers, days, words and keys, not documents."""
MAX_ROW_BYTES: Final = 2**20
"""One row of a CSV file, quoted line breaks included; a longer line is passed over in pieces."""
MAX_WORKBOOK_BYTES: Final = 64 * 2**20
MAX_WORKBOOK_INFLATED_BYTES: Final = 256 * 2**20
"""A workbook is held in memory as a whole; a compressed bomb stops here. Larger tables come as CSV."""
MAX_WORKBOOK_MEMBERS: Final = 1_000
MAX_SHEET_CELLS: Final = 5_000_000
"""Columns times rows of one sheet, empty ones included (32 bytes each in memory): one stray value in the last cell
of a sheet would otherwise ask for half a terabyte."""
MAX_SHEET_DEAD_CELLS: Final = 100_000
"""Cells of one sheet that show an error, or a formula without a value."""
MAX_TABLE_ROWS: Final = 50_000_000
"""Of one table of a database; a join that was meant otherwise stops here."""
SQL_BATCH_ROWS: Final = 1_000
"""Rows fetched at once: with cells of MAX_CELL_CHARS some MB."""
SQL_STATEMENT_S: Final = 600.0
"""One fetch of a query; after it the database is told to give up. A first sort of a large table takes minutes."""
SQL_CONNECT_S: Final = 10
MAX_RECENT_ROWS: Final = 5_000
"""Rows remembered one by one in a mark as already read, so that a change that comes late is seen and nothing is read
twice (8 bytes each); where more changed at about the same time, one digest stands for all of them."""

# --- files of an export (bytes unless said) -------------------------------------------------------
PAGE_BYTES: Final = 32 * 2**20
"""Of resources that a reader of files hands over at once, beside PAGE_RESOURCES: large ones make pages shorter."""
READ_CHUNK_BYTES: Final = 2**20
MAX_JSON_DEPTH: Final = 200
"""Objects and lists inside each other: deep questionnaires have 40, and Python's own stack ends at 1,000."""
INFLATION_LOOK_BYTES: Final = 64 * 2**20
"""What a compressed file may unpack to before its ratio is looked at."""
MAX_INFLATION: Final = 200
"""Times that a file may unpack to more than it is. FHIR NDJSON unpacks to 10 to 40 times; gzip can do 1,030."""

# --- catalogue and the hub's FHIR face --------------------------------------------------------------
CATALOGUE_EPSILON: Final = 1.0
"""Ceiling for all catalogue releases of one dataset together, at DELTA, until the owner sets another: enough for a
description within some percent of a cohort of two thousand, and a third of what one study may spend."""
CATALOGUE_BINS: Final = 32
"""Of a number's range; with the noise of a catalogue finer bins would show no more."""
FACE_PORT: Final = 8095
FACE_PAGE_RESOURCES: Final = 100
"""Where a search does not say `_count`."""
FACE_MAX_PAGE_RESOURCES: Final = 1_000
"""One page of a search; some 600 kB."""
FACE_MAX_QUERY_CHARS: Final = 2_000
"""The longest search that makes sense names a few codes and a patient."""
FACE_MAX_CALLS: Final = 20
"""In progress at once; further ones are told to come again."""
FACE_MAX_TOKENS: Final = 50
FACE_TOKEN_BYTES: Final = 32
