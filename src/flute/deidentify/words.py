"""Descriptions cleaned word by word: what scanners call their sequences stays, every other word goes.

A series description is where technicians write what does not fit elsewhere, names and birth dates included. So
nothing is searched for and cut out: a word stays only if it is on the list, and a run of three numbers (a date) goes
whatever it is. Names of the patient himself go even where they are on the list ("Cor" is a plane and a surname).
Guarantees: the result holds ASCII words of the list only; cleaning it again changes nothing.
Source: DICOM PS3.15 annex E.3.4 (Clean Descriptors Option).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_MAKERS: Final = """
    siemens healthineers healthcare philips medical systems system ge canon toshiba hitachi fujifilm uih
    united imaging bruker esaote hologic
    skyra prisma prisma_fit fit trio triotim tim verio aera avanto symphony espree amira altea lumina sola vida free
    magnetom biograph mmr terra cima vidafit skyrafit avantofit skyra_fit avanto_fit
    ingenia achieva intera panorama ambition elition evolution gyroscan dstream multiva prodiva
    signa architect artist explorer hero hdxt hdx excite discovery optima pioneer premier voyager creator
    vantage galan orian titan elan centurian echelon oval aperto umr
"""
_SEQUENCES: Final = """
    t1 t2 t2s pd t1w t2w pdw t1wi t2wi dwi adc dce dti dsc swi swan flair stir spair spir dixon mdixon mdixonall water
    fat opp in out phase ip op inphase outphase wfs map maps trace tracew tra tse fse frfse ssfse haste hastirm ffe
    gre spgr fspgr flash fl vibe lava thrive ethrive twist tricks disco keyhole grasp radial blade propeller multivane
    jet space cube vista bravo mprage tfe tfl turbo fast fastspin spin echo epi ep ep2d ss ssh dw resolve zoomit focus
    zoom muse irfse ir tirm medic fiesta trufi bssfp ciss se me multi band sms hyper hyperband sense grappa arc asset
    caipi cs compressed dl deep air recon ai boost drb boosted
    b bval bvalue bvalues value high low calc calculated computed synthetic syn derived original primary secondary
    mono monoexp exp expb isotropic iso aniso average avg mean median sum min max mip mpr sub subtraction
    pre post contrast native km kontrast gd gad delay dyn dynamic perfusion diffusion diff weighted weighting
    spectral fs fatsat sat sup suppressed nofs nfs wo with without and of the
    ax axial tra transversal transverse trans tr cor coronal sag sagittal sagital obl oblique para plane ortho
    localizer localiser scout survey loc calibration cal ref reference shim
    small large full field fov whole body wb head neck brain spine chest thorax abdomen abd pelvis pelvic hip thigh
    upper lower left right lt rt bilateral
    axiale coronale sagittale axiaal coronaal sagittaal koronar transversale oblicua oblicuo obliqua becken pelvico
    pelvien bassin bacino assiale coronal axial diffusione diffusie difusion diffusions
    image images series scan study exam protocol routine standard std screening research biparametric multiparametric
    bp mp bpmri mpmri mri mr irm rm mrt rmn ct pet seg segmentation segment rtstruct mask masks roi contour volume
    automatic semiautomatic manual threshold model algorithm reader
    body surface spine coil array phased flex torso pelvic pp anterior posterior combi quad birdcage endorectal
    h f fit n p s r l a t x y z c v nd norm filtered filter dis2d dis3d dis mfsplit m ffem
    magnitude real imaginary phase parallel none yes no unknown background other lesion lesions target index organ
    gland tissue fluid muscle bone bladder rectum urethra capsule zone peripheral transition central
    prisma_epi dotarem gadovist gadobutrol gadoterate gadoteridol prohance clariscan primovist magnevist omniscan
    apparent coefficient mm2 mm2s wip cdwi dadc edwi eadc pl 3pl
    mm cm ms s msec sec min ml nex nsa tesla
    simulated phantom test
"""
WORDS: Final = frozenset(f"{_MAKERS} {_SEQUENCES}".split())
"""Words of scanners, sequences, planes, regions and makers, lower case. What one clinical field calls its organs and
lesions is handed in by the caller."""
_PATTERNS: Final = re.compile(
    r"b(?:\d{1,3}|[1-5]\d[05]0)(?:[a-z]|avg|calc|trace)?(?:s\d)?"  # b-values: b1400, b0t; not a year
    r"|(?:t[12]|pd|dwi|dw|ep|se|me|tse|fse|ffe|gre|tir|fl|tfl|tfi|fi|h|dix|vibe|space|spc|qt|dyn|ph|te|tr|ti|fa|sl|st|ir)"
    r"\d{0,2}d?\d{0,3}(?:w|rs|t|b|m|vfl|ns|ir)?"  # sequence names of the makers: tse2d1_15, ep2d
    r"|[1-4]d|[13](?:\.5)?t|p[1-9]|mr\d{3}[a-z]?|[a-z]?\d{1,3}(?:mm|ms|cm|nex|nsa|dir|dirs|ch|min|s|sl)?"
    r"|\d{1,3}x\d{1,3}"
)
_B_VALUES: Final = frozenset({"1000", "1200", "1400", "1500", "1600", "1800", "2000", "2500", "3000"})
"""Numbers of four digits that may stand alone. Any other could be a year of birth."""
_THREE_NUMBERS: Final = re.compile(r"(?<![A-Za-z0-9])\d{1,4}(?:[^A-Za-z0-9]{1,2}\d{1,4}){2,}(?![A-Za-z0-9])")
_SPLIT: Final = re.compile(r"([^A-Za-z0-9]+)")
_KEPT_BETWEEN: Final = " _-"


def clean(text: str, words: frozenset[str], forbidden: frozenset[str]) -> str:
    """The words of `text` that are on the list and not among `forbidden` (lower case, plain letters)."""
    text = _THREE_NUMBERS.sub(" ", _ascii(text))
    kept, between = "", ""
    for position, piece in enumerate(_SPLIT.split(text)):
        if position % 2:
            between = piece if len(piece) == 1 and piece in _KEPT_BETWEEN else " "
        elif piece and _may_stay(piece.lower(), words, forbidden):
            kept += (between if kept else "") + piece
            between = " "
        else:
            between = " "
    return clean(kept, words, forbidden) if _THREE_NUMBERS.search(kept) else kept


def tokens(texts: Iterable[str]) -> frozenset[str]:
    """What names and numbers consist of, for `forbidden`: lower case, plain letters, three or more of them. A number
    is also one without what stands between its digits."""
    found = set[str]()
    for text in texts:
        pieces = [piece.lower() for piece in re.split(r"[^A-Za-z0-9]+", _ascii(text)) if piece]
        found.update(pieces)
        if any(letter.isdigit() for letter in text):
            found.add("".join(pieces))
    return frozenset(piece for piece in found if len(piece) > 2)


def holds(text: str, forbidden: frozenset[str]) -> bool:
    """Whether one of the forbidden words stands in a text, as a word or, from five letters on, within one."""
    plain = _ascii(text).lower()
    words = set(re.split(r"[^a-z0-9]+", plain))
    return any(word in words or (len(word) > 4 and word in plain) for word in forbidden)


def _may_stay(word: str, words: frozenset[str], forbidden: frozenset[str]) -> bool:
    if word in forbidden:
        return False
    return word in words or word in _B_VALUES or _PATTERNS.fullmatch(word) is not None


def _ascii(text: str) -> str:
    """Letters without their accents; what has no plain letter becomes a space."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(c if c.isascii() and c.isprintable() else "" if unicodedata.combining(c) else " " for c in plain)
