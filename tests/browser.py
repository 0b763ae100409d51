"""The way to a headless browser's driver: by address, for where `localhost` has none."""

import os

from selenium.webdriver import ChromeService
from selenium.webdriver.common.utils import is_url_connectable

from devstack.programs import find


class Driver(ChromeService):
    """chromedriver on loopback; what it says is not shown."""

    def __init__(self) -> None:
        super().__init__(find("chromedriver"), log_output=os.devnull)

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_connectable(self) -> bool:
        return bool(is_url_connectable(self.port, "127.0.0.1"))
