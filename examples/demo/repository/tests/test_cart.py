import unittest

from shop.cart import Cart


class CartTest(unittest.TestCase):
    def test_an_empty_cart_costs_nothing(self) -> None:
        self.assertEqual(Cart().total(), 0)

    def test_every_piece_is_paid(self) -> None:
        cart = Cart()
        cart.add("tea", 350, 2)
        cart.add("cup", 900)
        self.assertEqual(cart.total(), 1600)


if __name__ == "__main__":
    unittest.main()
