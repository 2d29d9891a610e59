"""Links as people have them, ready to be used.

Where the numbers come from:

- `BROADBAND`: the standard link of the QUIC interop runner (`simple-p2p --delay=15ms --bandwidth=10Mbps --queue=25`), a
  queue of 25 packets of 1,500 bytes.
- `SATELLITE`: a geostationary one. RFC 2488, section 2, gives 239.6 to 279.0 ms one way for the distance alone; 30 ms
  are added for both ends.
- The lengths of bursts and of the gaps between them, and with them the mean losses of about 1, 5, 2, 3 and 10 %, and
  the delays and rates of `WIFI`, `WIFI_LOSSY`, `CELLULAR` and `CONGESTED`, are of the order that the network emulators
  of other transports have settled on for these names (those of str0m's `netem`, above all), rounded. They are typical
  and measured nowhere in particular. Who has recordings should use a `LinkTrace`.

A queue holds what the rate sends in 50 ms or more, as home routers and radio schedulers do; `CONGESTED` less.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stt_proto.testing.conditions import Conditions, GilbertElliott

BROADBAND = Conditions(delay=0.015, rate=10e6, queue=37_500)
WIFI = Conditions(delay=0.005, jitter=0.004, rate=100e6, queue=625_000, burst=GilbertElliott(good=200, bad=2))
WIFI_LOSSY = Conditions(delay=0.010, jitter=0.015, rate=50e6, queue=312_500, burst=GilbertElliott(good=40, bad=2))
CELLULAR = Conditions(delay=0.040, jitter=0.025, rate=30e6, queue=375_000, burst=GilbertElliott(good=100, bad=2))
SATELLITE = Conditions(delay=0.290, jitter=0.020, rate=15e6, queue=1_000_000, burst=GilbertElliott(good=100, bad=3))
CONGESTED = Conditions(delay=0.060, jitter=0.040, rate=10e6, queue=50_000, burst=GilbertElliott(good=18, bad=2))

PRESETS: Mapping[str, Conditions] = MappingProxyType(
    {
        "broadband": BROADBAND,
        "wifi": WIFI,
        "wifi_lossy": WIFI_LOSSY,
        "cellular": CELLULAR,
        "satellite": SATELLITE,
        "congested": CONGESTED,
    }
)
"""All of them, by name."""
