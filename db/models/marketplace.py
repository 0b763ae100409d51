"""users, shipments and bids: no more of the API's other tables than the chat's keys and queries name."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, Base, CreatedAt, Id


class User(Base):
    """Someone who chats."""

    __tablename__ = "users"
    __table_args__ = TABLE_OPTIONS

    id: Mapped[Id]
    first_name: Mapped[str | None] = mapped_column(String(100))
    last_name: Mapped[str | None] = mapped_column(String(100))
    avatar_url: Mapped[str | None] = mapped_column(String(500))


class Shipment(Base):
    """What a conversation of type SHIPMENT is about."""

    __tablename__ = "shipments"
    __table_args__ = TABLE_OPTIONS

    id: Mapped[Id]
    created_at: Mapped[CreatedAt | None]


class Bid(Base):
    """An offer to carry a shipment."""

    __tablename__ = "bids"
    __table_args__ = TABLE_OPTIONS

    id: Mapped[Id]
    shipment_id: Mapped[int | None] = mapped_column(ForeignKey("shipments.id", name="fk_bid_shipment"))
    created_at: Mapped[CreatedAt | None]
